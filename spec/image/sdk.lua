-- What the published examples of the Compute API's SDKs ask of it, call by call and command by
-- command. Their clients were never published, so that no example can be run as it is.
local assert = require "luassert"
local expect = require "spec.support.expect"

local M = {}

-- The Python one, then the two in Go.
local COMMANDS = {
  {
    [[pip install numpy && python -c "import numpy; print(numpy.__version__)"]],
    [[python -c "import numpy as np; print(np.random.rand(3))"]],
  },
  { [[python -c "print('hello')"]] },
  { [[python -c "print('agent execution')"]] },
}

--- post(op, body) asks the server and returns its answer; version is a pattern for numpy's.
function M.flows(post, version)
  local printed = {}
  for i, commands in ipairs(COMMANDS) do
    local sb = post("create", { timeout = 300 })
    assert.matches("^sb_", sb.sandbox_id)
    for _, command in ipairs(commands) do
      local r = post("exec", { sandbox_id = sb.sandbox_id, command = command })
      assert.equal(0, r.exit_code, r.stderr)
      printed[#printed + 1] = r.stdout
    end
    local st = post("status", { sandbox_id = sb.sandbox_id })
    assert.same({ "running", #commands }, { st.status, st.commands_executed }, "flow " .. i)
    assert.equal("terminated", post("terminate", { sandbox_id = sb.sandbox_id }).status)
  end
  expect.contains(printed[1], "Successfully installed numpy-")
  assert.matches("\n" .. version .. "\n$", printed[1])
  assert.matches("^%[0%.%d+,? +0%.%d+,? +0%.%d+%]\n$", printed[2])
  assert.same({ "hello\n", "agent execution\n" }, { printed[3], printed[4] })
end

return M
