-- Checks that the tests which the documents name exist: every `spec/…` path is a file or a folder,
-- and every name in quotes behind it (or behind its short form) stands in that file, in C with "_"
-- for its spaces:
--
--   `spec/e2e/walls_spec.lua`: "cannot touch process 1", "lives under"  walls: "cannot touch"
--
-- Prints what is missing; its exit status is 1 then.
local function read(path)
  local f = io.open(path)
  if not f then return nil end
  local text = f:read "a"
  f:close()
  return text or "" -- nil for a folder
end

local function each_line(command, visit)
  local p <close> = assert(io.popen(command))
  for line in p:lines() do visit(line) end
end

-- Short names: walls for spec/e2e/walls_spec.lua, test_core for spec/c/test_core.c.
local short = {}
each_line("ls spec/*/*_spec.lua spec/c/test_*.c", function(path)
  short[path:match "([%w_]+)_spec%.lua$" or path:match "(test_[%w_]+)%.c$"] = path
end)

local missing, checked = 0, 0
local function complain(...)
  missing = missing + 1
  print(string.format(...))
end

local function check(doc)
  local text = read(doc):gsub("%s+", " ")
  for path in text:gmatch "`(spec/[%w_/.]+)`" do
    if not read(path) then complain("%s names %s: no such file", doc, path) end
  end
  for name, rest in text:gmatch "([%w_/.]+)`?: ()\"" do
    local path = name:find("^spec/") and name or short[name]
    local source = path and read(path)
    while source do
      local title, after = text:match('^"([^"]+)"()', rest)
      if not title then break end
      checked = checked + 1
      local written = title:gsub("%p", "%%%0"):gsub(" ", "[ _]")
      if not source:find(written) then
        complain('%s names "%s" of %s', doc, title, path)
      end
      rest = text:match("^, ()\"", after) or #text + 1
    end
  end
end

each_line("ls README.md docs/*.md", check)
if checked == 0 then complain "no document names a test: is this the repository's root?" end
os.exit(missing == 0)
