--- Draws a document of results.lua: tables for a terminal, a page in Markdown, a plot in SVG.
local M = {}

local TIMES = { us = 1, ms = 1e3, s = 1e6 }

--- A value with its unit, the way people write it: "1.52 ms".
function M.value(v, unit)
  local name, each = unit:match "^(%S*)(.*)$"
  local us = TIMES[name]
  if us then
    v = v * us
    name = v >= 1e6 and "s" or v >= 1e3 and "ms" or "µs"
    v = v / (TIMES[name] or 1)
  elseif name == "KiB" and v >= 10240 then
    v, name = v / 1024, "MiB"
  end
  local digits = v == 0 and "0" or v < 10 and "%.2f" or v < 100 and "%.1f" or "%.0f"
  return (digits:format(v) .. " " .. name):gsub(" $", "") .. each
end

local function sorted_keys(t)
  local keys = {}
  for k in pairs(t) do keys[#keys + 1] = k end
  table.sort(keys)
  return keys
end

--- "1.43 × bwrap, 0.20 × crun", in the order of the rows.
local function ratios(row, group)
  local list = {}
  for _, other in ipairs(group.rows) do
    local r = not row.peer and row.ratios[other.name]
    if r then list[#list + 1] = ("%.2f × %s"):format(r, other.name) end
  end
  return table.concat(list, ", ")
end

--- Fills with spaces up to a width in characters.
local function pad(text, width) return text .. (" "):rep(width - utf8.len(text)) end

local function verdict(t)
  if t.met == nil then return "not measured: " .. t.skipped end
  return ("%.3g: %s"):format(t.value, t.met and "met" or "missed")
end

local function text_row(row, g)
  local name = "  " .. pad(row.name, 44)
  if row.skipped then return name .. " skipped: " .. row.skipped end
  local function value(v) return pad(M.value(v, g.unit), 13) end
  return ("%s %s p90 %s p99 %s %s"):format(name, value(row.median), value(row.p90), value(row.p99),
    ratios(row, g))
end

--- The tables of the groups for which wanted(name) holds, for a terminal.
function M.text(doc, wanted)
  local out = {}
  for _, g in ipairs(doc.groups) do
    if wanted(g.name) then
      out[#out + 1] = "\n" .. g.title
      for _, row in ipairs(g.rows) do out[#out + 1] = text_row(row, g) end
      for _, t in ipairs(doc.targets) do
        if t.group == g.name then
          out[#out + 1] = ("  wanted: %s, %s; %s"):format(t.row, t.wanted, verdict(t))
        end
      end
    end
  end
  return table.concat(out, "\n") .. "\n"
end

-- Markdown ---------------------------------------------------------------------------------------

local PAGE = [[
# Benchmarks

`make bench` measures, writes `build/bench.json` (what is in it: `spec/bench/results.lua`) and draws
this page and its plot from it; `make bench-page JSON=FILE` draws them again from any such file.
`sh tools/bench.sh build GROUP…` measures some groups anew and keeps the others' results. What is
wanted of which row is in `spec/bench/targets.lua`; what was missed stands here as missed.

Rows of a group take turns in one run, a batch each, so that a machine that drifts drifts for all:
compare within a group only. A ratio is one of medians.
]]

local function cell(text) return (tostring(text):gsub("|", "\\|")) end

local function table_of(out, head, rows)
  out[#out + 1] = "| " .. table.concat(head, " | ") .. " |"
  out[#out + 1] = "|" .. ("---|"):rep(#head)
  for _, r in ipairs(rows) do
    for i, c in ipairs(r) do r[i] = cell(c) end
    out[#out + 1] = "| " .. table.concat(r, " | ") .. " |"
  end
  out[#out + 1] = ""
end

local function machine(out, doc)
  local rows = {}
  for _, k in ipairs(sorted_keys(doc.machine)) do rows[#rows + 1] = { k, doc.machine[k] } end
  out[#out + 1] = "## The machine\n"
  table_of(out, { "", "" }, rows)
end

local function targets(out, doc)
  local rows, met, missed = {}, 0, 0
  for _, t in ipairs(doc.targets) do
    local word = "met"
    if t.met == nil then
      word = "not measured: " .. t.skipped
    elseif t.met then
      met = met + 1
    else
      missed, word = missed + 1, "**missed**"
    end
    rows[#rows + 1] = { t.title, t.row, t.wanted, t.value and ("%.3g"):format(t.value) or "", word }
  end
  out[#out + 1] = ("## What is wanted: %d met, %d missed\n"):format(met, missed)
  table_of(out, { "of", "row", "wanted", "measured", "" }, rows)
end

local function group(out, g)
  local rows = {}
  for _, r in ipairs(g.rows) do
    if r.skipped then
      rows[#rows + 1] = { r.name, "skipped", "", "", "", r.skipped }
    else
      rows[#rows + 1] = { r.name, M.value(r.median, g.unit), M.value(r.p90, g.unit),
        M.value(r.p99, g.unit), r.n, ratios(r, g) }
    end
  end
  out[#out + 1] = ("### %s\n"):format(g.title)
  table_of(out, { "", "median", "p90", "p99", "samples", "against peers" }, rows)
  out[#out + 1] = ("Group `%s`, at %s, %s.\n"):format(g.name, g.commit or "?", g.date or "?")
end

--- The page; plot: the name of the SVG beside it.
function M.markdown(doc, plot)
  local out = { PAGE }
  targets(out, doc)
  out[#out + 1] = "## The plot\n"
  out[#out + 1] = ("![Medians of every row, with what is wanted of it](%s)\n"):format(plot)
  machine(out, doc)
  out[#out + 1] = "## All rows\n"
  for _, g in ipairs(doc.groups) do group(out, g) end
  return (table.concat(out, "\n"):gsub("\n+$", "\n"))
end

-- SVG --------------------------------------------------------------------------------------------

local WIDTH, LEFT, BAR, STEP = 860, 320, 400, 22 -- bars begin at LEFT and are at most BAR wide

local STYLE = [[
  svg { background: #ffffff; font: 13px system-ui, sans-serif; }
  text { fill: #1f2328; } .title { font-weight: 600; } .note { fill: #59636e; }
  .ours { fill: #2f6fde; } .peer { fill: #a8b1bd; } .tail { stroke: #1f2328; stroke-opacity: .45; }
  .met { stroke: #1a7f37; } .missed { stroke: #cf222e; } .met, .missed { stroke-width: 3; }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117; } text { fill: #e6edf3; } .note { fill: #9198a1; }
    .ours { fill: #5b93f5; } .peer { fill: #5a636e; } .tail { stroke: #e6edf3; }
    .met { stroke: #3fb950; } .missed { stroke: #f85149; }
  }
]]

local LEGEND = '<text class="note" x="8" y="16">Medians; thin lines reach to the 90th percentile. '
  .. "Blue is regolith, grey its peers. Marks across: what is wanted, green met, red missed.</text>"

local ESCAPE = { ["&"] = "&amp;", ["<"] = "&lt;", [">"] = "&gt;", ['"'] = "&quot;" }
local function escape(text) return (text:gsub('[&<>"]', ESCAPE)) end

--- The bounds of a row in the group's unit: { value, met }.
local function bounds(doc, g, row)
  local list = {}
  for _, t in ipairs(doc.targets) do
    local mine = t.group == g.name and t.row == row.name
    if mine and t.stat == "median" and (t.value or 0) > 0 then
      list[#list + 1] = { row.median * t.bound / t.value, t.met }
    end
  end
  return list
end

--- The value at the right end of a group's bars.
local function scale(doc, g)
  local most = 0
  for _, row in ipairs(g.rows) do
    if row.median then
      most = math.max(most, row.median, math.min(row.p90, row.median * 2))
      for _, b in ipairs(bounds(doc, g, row)) do most = math.max(most, b[1]) end
    end
  end
  return most > 0 and most or 1
end

local function draw_row(out, doc, g, row, y, most)
  local function x(v) return LEFT + math.min(v / most, 1) * BAR end
  local function add(fmt, ...) out[#out + 1] = fmt:format(...) end
  add('<text x="%d" y="%d" text-anchor="end">%s</text>', LEFT - 8, y + 13, escape(row.name))
  if not row.median then
    add('<text class="note" x="%d" y="%d">skipped: %s</text>', LEFT, y + 13, escape(row.skipped))
    return
  end
  local function line(class, from, above, to, below)
    add('<line class="%s" x1="%.1f" y1="%d" x2="%.1f" y2="%d"/>', class, from, y + above, to,
      y + below)
  end
  add('<rect class="%s" x="%d" y="%d" width="%.1f" height="14" rx="2"/>',
    row.peer and "peer" or "ours", LEFT, y + 2, math.max(x(row.median) - LEFT, 1))
  if row.p90 > row.median then line("tail", x(row.median), 9, x(row.p90), 9) end
  for _, b in ipairs(bounds(doc, g, row)) do
    line(b[2] and "met" or "missed", x(b[1]), 0, x(b[1]), 18)
  end
  add('<text class="note" x="%d" y="%d">%s</text>', LEFT + BAR + 8, y + 13,
    escape(M.value(row.median, g.unit)))
end

--- The plot: for each group a bar a row. It needs nothing but itself, and knows dark from light.
function M.svg(doc)
  local out, y = {}, 40
  for _, g in ipairs(doc.groups) do
    out[#out + 1] = ('<text class="title" x="8" y="%d">%s</text>'):format(y, escape(g.title))
    y = y + 8
    local most = scale(doc, g)
    for _, row in ipairs(g.rows) do
      draw_row(out, doc, g, row, y, most)
      y = y + STEP
    end
    y = y + 30
  end
  local head = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d">'
  head = head:format(WIDTH, y, WIDTH, y)
  return table.concat({ head, "<style>\n" .. STYLE .. "</style>", LEGEND, table.concat(out, "\n"),
    "</svg>\n" }, "\n")
end

return M
