-- gpu-hours: no GPUs outside working hours.
--
--     regolith run --plugin gpu-hours script.lua                          Monday to Friday, 9 to 17
--     regolith run --plugin "gpu-hours=mon-fri 08:30-18:00, sat 10-14"
--
-- Hours are local time; "22-6" goes past midnight and belongs to the day it begins on. Without days
-- a range holds every day. CPU sandboxes are never refused.

local name, option = ...

local DAYS <const> = { "sun", "mon", "tue", "wed", "thu", "fri", "sat" }
local DEFAULT <const> = "mon-fri 9-17"

local function complain(part)
  error(("%q is not a time such as %q"):format(part, "mon-fri 08:30-18:00"), 0)
end

local function day_number(word, part)
  for i, day in ipairs(DAYS) do
    if word == day then return i end
  end
  complain(part)
end

--- "17" or "17:30" as minutes.
local function minutes(word, part)
  local hour, minute = word:match "^(%d%d?):?(%d*)$"
  hour, minute = tonumber(hour), minute == "" and 0 or tonumber(minute)
  if not hour or not minute or minute > 59 or hour * 60 + minute > 24 * 60 then complain(part) end
  return hour * 60 + minute
end

local function read_days(text, part)
  local days = {}
  if text == "" then
    for i = 1, 7 do days[i] = true end
    return days
  end
  local first, last = text:match "^(%a+)%-(%a+)$"
  first, last = day_number(first or text, part), day_number(last or text, part)
  local day = first
  days[day] = true
  while day ~= last do
    day = day % 7 + 1
    days[day] = true
  end
  return days
end

local function read_hours(text)
  local ranges = {}
  for part in text:lower():gmatch "[^,]+" do
    part = part:match "^%s*(.-)%s*$"
    local days, from, to = part:match "^([%a%-]*)%s*(%d[%d:]*)%-(%d[%d:]*)$"
    if not days then complain(part) end
    ranges[#ranges + 1] = {
      days = read_days(days, part), from = minutes(from, part), to = minutes(to, part),
    }
  end
  if #ranges == 0 then complain(text) end
  return ranges
end

--- wday as os.date has it: 1 is Sunday.
local function is_open(ranges, wday, minute)
  local yesterday = (wday + 5) % 7 + 1
  for _, r in ipairs(ranges) do
    if r.from < r.to then
      if r.days[wday] and minute >= r.from and minute < r.to then return true end
    elseif r.days[wday] and minute >= r.from or r.days[yesterday] and minute < r.to then
      return true
    end
  end
  return false
end

--- For specs: "@2026-03-02T10:00 …" in front stands for the clock.
local function read_clock(text)
  local year, month, day, hour, minute, rest =
    text:match "^@(%d+)%-(%d+)%-(%d+)T(%d+):(%d+)%s*(.*)$"
  if not year then return os.time, text end
  local at = os.time { year = year, month = month, day = day, hour = hour, min = minute }
  return function() return at end, rest
end

local clock, text = read_clock(option or "")
if text == "" then text = DEFAULT end
local ranges = read_hours(text)

local function before_create(_, info)
  local gpu = info.config.gpu
  if gpu == nil then return end
  local now = os.date("*t", clock())
  if is_open(ranges, now.wday, now.hour * 60 + now.min) then return end
  error {
    code = "denied",
    field = "gpu",
    message = ("no GPUs at %02d:%02d: they are there %s"):format(now.hour, now.min, text),
    hint = "leave gpu out, or come back then",
  }
end

return { name = name, on = { before_create = before_create } }
