-- The specs of the API and of outcomes once more, as scripts of `regolith run` in workers, where
-- each call goes over the socket pair. In process is how regolith-spec runs them.
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local machine = require "spec.support.machine"
local proc = require "spec.support.proc"
local task = require "task"

local SPECS = { "api/sandbox_spec", "e2e/outcomes_spec", "api/task_spec", "api/exec_spec",
  "api/pool_spec" }

-- A script finds modules below its own directory and nowhere else.
local function lay_out()
  local dir = files.dir "inside"
  proc.run { "sh", "-c", ("mkdir -p '%s/spec/support' '%s/spec/api' '%s/spec/e2e'"):format(dir, dir,
    dir) }
  files.write(dir .. "/inside.lua", files.read "spec/support/inside.lua")
  files.write(dir .. "/spec/support/expect.lua", files.read "spec/support/expect.lua")
  for _, spec in ipairs(SPECS) do
    files.write(("%s/spec/%s.lua"):format(dir, spec), files.read(("spec/%s.lua"):format(spec)))
  end
  return dir
end

describe("as scripts in workers", function()
  it("the specs of the API say what they say in process", function()
    local before = leftovers.before()
    local dir = lay_out()
    local limits = machine.has_limits() and "limits" or "none"
    task.map(SPECS, { limit = 2 }, function(spec)
      local argv = { "run", "--allow-image", "*", "--allow-port", "*", "--memory", "128MiB",
        dir .. "/inside.lua", "--", "spec." .. spec:gsub("/", "."), limits }
      local r = proc.cli(argv, { timeout = 120 })
      local passed, failed = r.stdout:match "(%d+) passed, (%d+) failed"
      local said = spec .. ":\n" .. r.stdout .. r.stderr
      assert.equal("0", failed, said)
      assert.equal(0, r.status, said)
      -- As many as there are, but for the few that look at this process from outside.
      local there = select(2, files.read(("spec/%s.lua"):format(spec)):gsub("\n +it%(", ""))
      expect.between(there - (limits == "limits" and 5 or 9), there, tonumber(passed), said)
    end)
    files.clean()
    leftovers.none_since(before, 5)
  end)
end)
