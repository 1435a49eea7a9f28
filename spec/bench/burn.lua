-- Computes for about half a second.
local a = 0
for i = 1, 4e7 do a = (a + i) % 1000003 end
assert(a >= 0)
