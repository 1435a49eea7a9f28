-- Every script under examples/ runs, and prints what examples/expected/NAME.txt says. Lines there
-- are compared as they are, but for these marks: <id> a sandbox id, <n> a number, <time> a time of
-- day, <…> anything within the line.
local lfs = require "lfs"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local leftovers = require "spec.support.leftovers"
local proc = require "spec.support.proc"

local MARKS = {
  ["<id>"] = "sb_[0-9a-z]+",
  ["<n>"] = "%-?[%d.]+",
  ["<time>"] = "%d+%-%d+%-%d+T%d+:%d+:%d+Z",
  ["<…>"] = ".-",
}

local function pattern_of(line)
  local out = line:gsub("[%^%$%(%)%%%.%[%]%*%+%-%?]", "%%%0")
  for mark, pattern in pairs(MARKS) do
    out = out:gsub(mark, (pattern:gsub("%%", "%%%%")))
  end
  return "^" .. out .. "$"
end

local function lines_of(text)
  local list = {}
  for line in (text:gsub("\n$", "") .. "\n"):gmatch "([^\n]*)\n" do list[#list + 1] = line end
  return list
end

local function examples(dir, prefix, out)
  local names = {}
  for name in lfs.dir(dir) do names[#names + 1] = name end
  table.sort(names)
  for _, name in ipairs(names) do
    local path = dir .. "/" .. name
    if name:find "%.lua$" then
      out[#out + 1] = { path = path, name = prefix .. name:gsub("%.lua$", "") }
    elseif name:sub(1, 1) ~= "." and lfs.attributes(path, "mode") == "directory" then
      examples(path, prefix .. name .. "-", out)
    end
  end
  return out
end

-- tour/01-hello.lua is expected/tour-01-hello.txt, or expected/tour/01-hello.txt.
local function expected_of(example)
  return files.read("examples/expected/" .. example.name .. ".txt")
    or files.read((example.path:gsub("^examples/", "examples/expected/"):gsub("%.lua$", ".txt")))
end

describe("the example", function()
  local before
  before_each(function() before = leftovers.before() end)
  after_each(function() leftovers.none_since(before, 5) end)

  for _, example in ipairs(examples("examples", "", {})) do
    for _, mode in ipairs { "--jobs=200", "--trust" } do
      it(example.path .. " prints what it should (" .. mode .. ")", function()
        local want = expected_of(example)
        assert.is_truthy(want, "no expected output: examples/expected/" .. example.name .. ".txt")
        local r = proc.cli({ "run", mode, example.path }, { timeout = 60 })
        assert.equal(0, r.status, r.stderr)
        local got_lines, want_lines = lines_of(r.stdout), lines_of(want)
        for i, line in ipairs(want_lines) do
          local got = got_lines[i] or "(nothing)"
          if not got:find(pattern_of(line)) then
            error(("line %d\n  want: %s\n  got:  %s\nof:\n%s"):format(i, line, got, r.stdout), 0)
          end
        end
        assert.equal(#want_lines, #got_lines, r.stdout)
      end)
    end

    it(example.path .. " passes regolith check", function()
      local r = proc.cli { "check", example.path }
      assert.equal(0, r.status, r.stdout .. r.stderr)
    end)
  end

  it("list is complete: the tour has its eight lessons", function()
    local lessons = 0
    for _, e in ipairs(examples("examples", "", {})) do
      if e.path:find "^examples/tour/" then lessons = lessons + 1 end
    end
    expect.between(8, 8, lessons, "lessons")
  end)
end)
