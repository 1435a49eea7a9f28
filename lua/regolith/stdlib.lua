-- The parts of the standard library that loop or call back, in Lua, so that the runtime can take
-- turns inside them: the other halves of src/script/lib_string.c and lib_table.c, which check the
-- arguments. Where something is wrong they return nil and a message, and the C half raises it with
-- the caller's place. Functions of the library are locals: scripts may change the globals.

local stock_concat, less_than = ...
local type, sub = type, string.sub

local M = {}

--- gsub with a function or a table. scan() gives the bounds and captures of the next match.
function M.gsub(scan, subject, repl, limit)
  local is_table = type(repl) == "table"
  local out, n, count, from = {}, 0, 0, 1
  local bad

  local function take(first, last, ...)
    if not first then return false end
    count = count + 1
    local value
    if is_table then value = repl[(...)] else value = repl(...) end
    if not value then return true end
    if type(value) ~= "string" and type(value) ~= "number" then
      bad = "invalid replacement value (a " .. type(value) .. ")"
      return false
    end
    out[n + 1], out[n + 2] = sub(subject, from, first - 1), value
    n, from = n + 2, last + 1
    return true
  end

  while count < limit and take(scan()) do end
  if bad then return nil, bad end
  if n == 0 then return subject, count end
  out[n + 1] = sub(subject, from)
  return M.concat(out, "", 1, n + 1), count
end

function M.insert(t, pos, last, value)
  for i = last, pos + 1, -1 do t[i] = t[i - 1] end
  t[pos] = value
end

function M.remove(t, pos, size)
  local value = t[pos]
  for i = pos, size - 1 do t[i] = t[i + 1] end
  t[size] = nil
  return value
end

function M.move(source, from, last, to, target)
  if to > last or to <= from or source ~= target then
    for i = 0, last - from do target[to + i] = source[from + i] end
  else
    for i = last - from, 0, -1 do target[to + i] = source[from + i] end
  end
  return target
end

local BLOCK <const> = 4096

function M.concat(t, sep, first, last)
  local parts, block, n = {}, {}, 0
  for i = first, last do
    local value = t[i]
    if type(value) ~= "string" and type(value) ~= "number" then
      return nil, "invalid value (" .. type(value) .. ") at index " .. i .. " in table for 'concat'"
    end
    n = n + 1
    block[n] = value
    if n == BLOCK then
      parts[#parts + 1] = stock_concat(block, sep, 1, n)
      n = 0
    end
  end
  if n > 0 then parts[#parts + 1] = stock_concat(block, sep, 1, n) end
  return stock_concat(parts, sep)
end

--- A plain table of t[first] … t[last], for unpack.
function M.gather(t, first, last)
  local out = {}
  for i = 0, last - first do out[i + 1] = t[first + i] end
  return out
end

-- Sorting: quicksort with the median of three, short stretches by insertion, and heapsort where
-- quicksort goes wrong, so that no input takes more than n log n. Only swaps and whole shifts touch
-- the table: an order function that raises leaves a permutation of what was there.

local function sort_short(t, lo, hi, lt)
  for i = lo + 1, hi do
    local value, to = t[i], i
    while to > lo and lt(value, t[to - 1]) do to = to - 1 end
    if to < i then
      for k = i, to + 1, -1 do t[k] = t[k - 1] end
      t[to] = value
    end
  end
end

local function sift_down(t, lo, root, count, lt)
  while true do
    local child = 2 * root + 1
    if child >= count then return end
    if child + 1 < count and lt(t[lo + child], t[lo + child + 1]) then child = child + 1 end
    if not lt(t[lo + root], t[lo + child]) then return end
    t[lo + root], t[lo + child] = t[lo + child], t[lo + root]
    root = child
  end
end

local function sort_heap(t, lo, hi, lt)
  local count = hi - lo + 1
  for root = count // 2 - 1, 0, -1 do sift_down(t, lo, root, count, lt) end
  for last = count - 1, 1, -1 do
    t[lo], t[lo + last] = t[lo + last], t[lo]
    sift_down(t, lo, 0, last, lt)
  end
end

--- Returns the borders of what is left of and right of the middle; nil for an order function that
--- contradicts itself.
local function partition(t, lo, hi, lt)
  local mid = (lo + hi) // 2
  if lt(t[mid], t[lo]) then t[mid], t[lo] = t[lo], t[mid] end
  if lt(t[hi], t[mid]) then
    t[hi], t[mid] = t[mid], t[hi]
    if lt(t[mid], t[lo]) then t[mid], t[lo] = t[lo], t[mid] end
  end
  local pivot, i, j = t[mid], lo, hi
  repeat
    while lt(t[i], pivot) do
      if i == hi then return nil end
      i = i + 1
    end
    while lt(pivot, t[j]) do
      if j == lo then return nil end
      j = j - 1
    end
    if i <= j then
      t[i], t[j] = t[j], t[i]
      i, j = i + 1, j - 1
    end
  until i > j
  return j, i
end

local function sort_range(t, lo, hi, lt, depth)
  while hi - lo > 12 do
    if depth == 0 then
      sort_heap(t, lo, hi, lt)
      return true
    end
    depth = depth - 1
    local left, right = partition(t, lo, hi, lt)
    if not left then return false end
    if left - lo < hi - right then
      if not sort_range(t, lo, left, lt, depth) then return false end
      lo = right
    else
      if not sort_range(t, right, hi, lt, depth) then return false end
      hi = left
    end
  end
  sort_short(t, lo, hi, lt)
  return true
end

local function plain_less(a, b) return a < b end

--- The quick comparison where all elements are numbers or all are strings.
local function choose_order(t, n)
  local kind = type(t[1])
  if kind ~= "number" and kind ~= "string" then return less_than end
  for i = 2, n do
    if type(t[i]) ~= kind then return less_than end
  end
  return plain_less
end

function M.sort(t, n, lt)
  local depth = 2
  local k = n
  while k > 1 do
    k, depth = k // 2, depth + 2
  end
  if sort_range(t, 1, n, lt or choose_order(t, n), depth) then return true end
  return nil, "invalid order function for sorting"
end

return M
