--- What a run of the benchmarks found: from samples to the document that build/bench.json holds.
--
-- A group's samples come as lines of fields between tabs:
--
--   group NAME TITLE UNIT     first; UNIT: us, ms, KiB, MiB, MiB/s or nothing, and perhaps " each"
--   row NAME | peer NAME      opens a row; a peer is another program, which rows are held against
--   sample VALUE              of the row above
--   skipped WHY               the row above cannot be measured here
--   measured COMMIT DATE      last
--
-- The document:
--
--   { format = 1, machine = { NAME = TEXT, … },
--     groups = { { name, title, unit, commit, date, rows = {
--       { name, peer, n, median, p90, p99, ratios = { PEER = NUMBER }, skipped } } } },
--     targets = { { group, title, row, stat, bound, wanted, value, met, skipped } } }
--
-- ratios are of medians, within the group. A target's value and met are absent where a row of it
-- was skipped; skipped then says why.
local M = {}

--- Splits a line at its tabs.
local function fields(line)
  local list = {}
  for f in (line .. "\t"):gmatch "([^\t]*)\t" do list[#list + 1] = f end
  return table.unpack(list)
end

--- The value that a share q of the samples (sorted) does not exceed.
local function at(sorted, q) return sorted[math.floor(q * (#sorted - 1) + 0.5) + 1] end

local function finish(row)
  local samples = row.samples
  row.samples = nil
  table.sort(samples)
  row.n = #samples
  if #samples == 0 then
    row.skipped = row.skipped or "no samples"
    return
  end
  row.median, row.p90, row.p99 = at(samples, 0.5), at(samples, 0.9), at(samples, 0.99)
end

local function compare(group)
  for _, row in ipairs(group.rows) do
    row.ratios = {}
    for _, other in ipairs(group.rows) do
      if other.peer and other ~= row and other.median and row.median and other.median > 0 then
        row.ratios[other.name] = row.median / other.median
      end
    end
  end
end

--- One group, from its lines.
function M.group(text)
  local group, row
  for line in text:gmatch "[^\n]+" do
    local word, a, b, c = fields(line)
    if word == "group" then
      group = { name = a, title = b, unit = c, rows = {} }
    elseif word == "row" or word == "peer" then
      row = { name = a, peer = word == "peer", samples = {} }
      group.rows[#group.rows + 1] = row
    elseif word == "sample" then
      row.samples[#row.samples + 1] = assert(tonumber(a), line)
    elseif word == "skipped" then
      row.skipped = a
    elseif word == "measured" then
      group.commit, group.date = a, b
    else
      error("not a line of samples: " .. line)
    end
  end
  for _, r in ipairs(group.rows) do finish(r) end
  compare(group)
  return group
end

local function find(list, name)
  for _, v in ipairs(list) do
    if v.name == name then return v end
  end
end

--- What the target's row is held against, and its name: the fastest of several, or 1 (then the
--- bound is in the group's unit).
local function base(target, group)
  if not target.of then return 1 end
  local best, name
  for _, peer in ipairs(type(target.of) == "table" and target.of or { target.of }) do
    local row = find(group.rows, peer)
    if row and row.median and (not best or row.median < best) then best, name = row.median, peer end
  end
  return best, name or target.of
end

local function wanted(target, unit, name)
  local bound = target.at_most or target.at_least
  return ("%s%s %s%s"):format(target.stat and target.stat .. " " or "",
    target.at_most and "at most" or "at least",
    bound == math.floor(bound) and ("%d"):format(bound) or ("%.3g"):format(bound),
    name and " × " .. name or unit ~= "" and " " .. unit or "")
end

local function judge(target, group)
  local row = find(group.rows, target.row)
  local against, name = base(target, group)
  local v = { group = group.name, title = group.title, row = target.row,
    stat = target.stat or "median", bound = target.at_most or target.at_least }
  v.wanted = wanted(target, group.unit, type(name) == "table" and name[1] or name)
  local got = row and row[v.stat]
  if got and against then
    v.value = got / against
    if target.at_most then v.met = v.value <= v.bound else v.met = v.value >= v.bound end
  else
    v.skipped = not row and "no such row" or row.skipped or "nothing to hold it against"
  end
  return v
end

--- The document of these groups; targets: see targets.lua. Those of other groups are left out.
function M.document(machine, groups, targets)
  local doc = { format = 1, machine = machine, groups = groups, targets = {} }
  for _, t in ipairs(targets) do
    local group = find(groups, t.group)
    if group then doc.targets[#doc.targets + 1] = judge(t, group) end
  end
  return doc
end

return M
