-- "Did you mean": the nearest of the names that exist.

local M = {}

--- Edits (insert, delete, replace, swap of neighbours) from a to b.
local function distance(a, b)
  local before, last = nil, {}
  for j = 0, #b do last[j] = j end
  for i = 1, #a do
    local row = { [0] = i }
    for j = 1, #b do
      local same = a:byte(i) == b:byte(j)
      local best = math.min(last[j] + 1, row[j - 1] + 1, last[j - 1] + (same and 0 or 1))
      if before and j > 1 and a:byte(i) == b:byte(j - 1) and a:byte(i - 1) == b:byte(j) then
        best = math.min(best, before[j - 2] + 1)
      end
      row[j] = best
    end
    before, last = last, row
  end
  return last[#b]
end

--- The name nearest to `name`, or nil where none is near.
---@param name string
---@param names string[]
---@return string?
function M.nearest(name, names)
  local best, best_distance
  for _, candidate in ipairs(names) do
    local d = distance(name:lower():sub(1, 64), candidate:lower())
    if d <= math.max(1, #candidate // 3) and (not best or d < best_distance) then
      best, best_distance = candidate, d
    end
  end
  return best
end

--- ", did you mean "x"?" or "".
---@param name string
---@param names string[]
---@return string
function M.phrase(name, names)
  local nearest = M.nearest(name, names)
  return nearest and (', did you mean "' .. nearest .. '"?') or ""
end

return M
