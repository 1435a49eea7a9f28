-- What becomes of samples:  regolith run … report.lua -- MODE …
--
--   collect JSON MACHINE SAMPLES...   writes JSON out of files of samples (results.lua) and a file
--                                     with lines of "NAME<tab>TEXT" about the machine
--   print JSON [GROUP...]             the tables of groups whose names begin so, for a terminal
--   draw JSON PAGE PLOT               writes the page (Markdown) and the plot (SVG)
local results = require "results"
local draw = require "draw"

local function read(path)
  local f = assert(io.open(path, "r"))
  local text = f:read "a"
  f:close()
  return text
end

local function write(path, text)
  local f = assert(io.open(path, "w"))
  assert(f:write(text))
  assert(f:close())
end

local mode = {}

function mode.collect(to, machine_path, ...)
  local machine, groups = {}, {}
  for name, text in read(machine_path):gmatch "([^\t\n]+)\t([^\n]*)" do machine[name] = text end
  for i, path in ipairs { ... } do groups[i] = results.group(read(path)) end
  write(to, json.encode(results.document(machine, groups, require "targets")) .. "\n")
end

function mode.print(from, ...)
  local prefixes = { ... }
  io.write(draw.text(json.decode(read(from)), function(name)
    for _, p in ipairs(prefixes) do
      if name:sub(1, #p) == p then return true end
    end
    return #prefixes == 0
  end))
end

function mode.draw(from, page, plot)
  local doc = json.decode(read(from))
  assert(doc.format == 1, from .. ": not a file of this version's benchmarks")
  write(page, draw.markdown(doc, plot:match "[^/]+$"))
  write(plot, draw.svg(doc))
end

local run = mode[arg[1]]
if not run then error("usage: report.lua collect|print|draw …") end
run(table.unpack(arg, 2))
