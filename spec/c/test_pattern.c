/* The replacements in the string and table libraries against the stock ones, in one state: the same
 * results and the same errors for generated patterns, subjects and replacements; searches that
 * pause and yield; and that what could hang does not. */
#include "test.h"

#include <lauxlib.h>
#include <lua.h>
#include <lualib.h>
#include <stdint.h>

#include "base/clock.h"
#include "script/lib.h"
#include "script/pattern.h"

static uint64_t seed;

static uint32_t roll(uint32_t n) /* 0 … n - 1, the same on every run */
{
  seed ^= seed << 13;
  seed ^= seed >> 7;
  seed ^= seed << 17;
  return (uint32_t)((seed >> 11) % n);
}

static void add(char *out, size_t *len, const char *text)
{
  size_t n = strlen(text);
  memcpy(out + *len, text, n);
  *len += n;
}

static const char *pick(const char *const *from, uint32_t n)
{
  return from[roll(n)];
}
#define PICK(list) pick(list, sizeof(list) / sizeof *(list))

/* Mostly well-formed text over a small alphabet, sometimes broken by one random byte. */
static size_t make_pattern(char *out)
{
  static const char *const items[] = {
      "a",    "b",     "c",     ".",      "%a",    "%d",     "%s",    "%w",      "%A",    "%x",
      "[ab]", "[^a]",  "[a-c]", "[%w_]",  "[]]",   "[^]a]",  "[a-]",  "[%a-z]",  "%%",    "%.",
      "-",    "%bab",  "%b()",  "%f[%w]", "%f[a]", "%f[^a]", "%1",    "%2",      "()",    "%l",
      "x",    "[%]a]", "[-a]",  "[b-a]",  "%p",    "%g",     "[^%s]", "%f[%z]",  "\xe9",  "%u",
      "%W",   "[%-x]", "^",     "$",      "%c",    "[a%%]",  "[.]",   "[^%d%u]", "[%a]?", "%D"};
  static const char *const suffixes[] = {"", "", "", "*", "+", "-", "?"};
  static const char *const odd[] = {"(", ")", "%", "[", "]", "%f", "%b", "%9", "[^", "%0", "%bx"};
  size_t len = 0;
  int open = 0;
  if (roll(6) == 0) add(out, &len, "^");
  for (uint32_t n = roll(6); n-- > 0 || open > 0;) {
    if (n > 100) n = 0;
    if (roll(5) == 0 && open < 3) {
      add(out, &len, "(");
      open++;
    }
    add(out, &len, PICK(items));
    add(out, &len, PICK(suffixes));
    if (open > 0 && roll(3) == 0) {
      add(out, &len, ")");
      open--;
    }
    if (len > 60) break;
  }
  if (roll(8) == 0) add(out, &len, "$");
  if (roll(12) == 0) add(out, &len, PICK(odd));
  if (len > 0 && roll(20) == 0) out[roll((uint32_t)len)] = "()%[]-*\0a^$"[roll(11)];
  return len;
}

static size_t make_subject(char *out)
{
  static const char alphabet[] = "aaaabbbccab()[]-.%_ x1Z\n\xe9";
  size_t len = roll(roll(4) ? 12 : 40);
  for (size_t i = 0; i < len; i++) out[i] = alphabet[roll(sizeof alphabet)];
  return len;
}

static const char compare_source[] =
    "local stock, ours, max = ...\n"
    "local pcall, pack, equal, type = pcall, table.pack, rawequal, type\n"
    "local function same(name, p, s, a, b)\n"
    "  if a.n ~= b.n then return false end\n"
    "  for i = 1, a.n do if not equal(a[i], b[i]) then return false end end\n"
    "  return true\n"
    "end\n"
    "local errors, matches = 0, 0\n"
    "local function try(name, ...)\n"
    "  local a, b = pack(pcall(stock[name], ...)), pack(pcall(ours[name], ...))\n"
    "  if not same(name, nil, nil, a, b) then\n"
    "    local out = {}\n"
    "    for _, t in ipairs { a, b } do\n"
    "      for i = 1, t.n do out[#out + 1] = ('%q'):format(tostring(t[i])) end\n"
    "      out[#out + 1] = '|'\n"
    "    end\n"
    "    error(('%s(%q, %q, %q): %s'):format(name, ..., (select(2, ...)),\n"
    "      tostring((select(3, ...))), table.concat(out, ' ')), 0)\n"
    "  end\n"
    "  if not a[1] then errors = errors + 1 elseif a[2] then matches = matches + 1 end\n"
    "end\n"
    "local function all(s, p)\n"
    "  local function collect(gmatch)\n"
    "    local out = {}\n"
    "    for a, b, c in gmatch(s, p) do\n"
    "      out[#out + 1] = tostring(a) .. ',' .. tostring(b) .. ',' .. tostring(c)\n"
    "    end\n"
    "    return table.concat(out, ';')\n"
    "  end\n"
    "  return collect\n"
    "end\n"
    "local function wrap(a, b) return a and b and (tostring(a) .. '|' .. tostring(b)) end\n"
    "local map = { a = 'A', b = false, ab = 12, ['1'] = 1.5 }\n"
    "return function(s, p, r, init)\n"
    "  try('find', s, p, init)\n"
    "  try('match', s, p, init)\n"
    "  try('gsub', s, p, r)\n"
    "  if init == 1 then try('gsub', s, p, wrap, 3) else try('gsub', s, p, map) end\n"
    "  local c = all(s, p)\n"
    "  local a, b = pack(pcall(c, stock.gmatch)), pack(pcall(c, ours.gmatch))\n"
    "  if not same('gmatch', p, s, a, b) then\n"
    "    error(('gmatch(%q, %q): %q %q'):format(s, p, tostring(a[2]), tostring(b[2])), 0)\n"
    "  end\n"
    "end, function() return errors, matches end\n";

static lua_State *state_new(const struct lib_host *host)
{
  lua_State *L = luaL_newstate();
  luaL_requiref(L, "_G", luaopen_base, 1);
  luaL_requiref(L, "coroutine", luaopen_coroutine, 1);
  luaL_requiref(L, "math", luaopen_math, 1);
  lua_pushcfunction(L, luaopen_string);
  lua_call(L, 0, 1);
  lua_setglobal(L, "stock_string");
  lua_pushcfunction(L, luaopen_table);
  lua_call(L, 0, 1);
  lua_setglobal(L, "stock_table");
  lib_string_open(L, host); /* last: the metatable of strings is to be ours */
  lib_table_open(L);
  lua_settop(L, 0);
  return L;
}

/* Runs the text and says whether it went well; its error goes to stderr. */
static bool run(lua_State *L, const char *source)
{
  if (luaL_dostring(L, source) == LUA_OK) return true;
  fprintf(stderr, "%s\n", lua_tostring(L, -1));
  return false;
}

static void test_against_stock(void)
{
  enum { PAIRS = 200000 };
  static const char *const replacements[] = {"", "x", "<%0>", "%1", "%2-%1", "%%", "%", "%x", "%9"};
  lua_State *L = state_new(NULL);
  CHECK(luaL_loadstring(L, compare_source) == LUA_OK);
  lua_getglobal(L, "stock_string");
  lua_getglobal(L, "string");
  lua_call(L, 2, 2);
  seed = 0x9e3779b97f4a7c15;
  for (int i = 0; i < PAIRS && !test_failed_checks; i++) {
    char pattern[128], subject[64];
    size_t pattern_len = make_pattern(pattern), len = make_subject(subject);
    lua_pushvalue(L, 1);
    lua_pushlstring(L, subject, len);
    lua_pushlstring(L, pattern, pattern_len);
    lua_pushstring(L, PICK(replacements));
    lua_pushinteger(L, roll(3) ? 1 : (int)roll(30) - 15);
    if (lua_pcall(L, 4, 0, 0) != LUA_OK) {
      fprintf(stderr, "stock | ours: %s\n", lua_tostring(L, -1));
      CHECK(!"differs from the stock library");
      lua_pop(L, 1);
    }
  }
  lua_call(L, 0, 2); /* the generator is only good when both happen often */
  CHECK(lua_tointeger(L, -2) > PAIRS / 10);
  CHECK(lua_tointeger(L, -1) > PAIRS / 2);
  lua_close(L);
}

static void test_limits_as_stock(void)
{
  lua_State *L = state_new(NULL);
  CHECK(run(L, "local function plain(e)\n"
               "  return type(e) == 'string' and e:gsub(\"to '[^']*'\", '') or e\n"
               "end\n"
               "for _, p in ipairs { ('a?'):rep(199), ('a?'):rep(200), ('()'):rep(32),\n"
               "    ('()'):rep(33), ('(a?)'):rep(30), ('a*'):rep(250), ('b?'):rep(400) } do\n"
               "  local s = ('a'):rep(300)\n"
               "  local ok, a = pcall(string.match, s, p)\n"
               "  local stock_ok, b = pcall(stock_string.match, s, p)\n"
               "  assert(ok == stock_ok and a == b, a)\n"
               "end\n"
               "for _, args in ipairs { {}, { 'a' }, { {}, 'a' }, { 'a', {} }, { 'a', 'a', {} },\n"
               "    { 'a', 'a', 'x', 'y' }, { 12, 2, 'x' }, { 'a', 'a', 'b', 1.5 },\n"
               "    { 'a', '%1', 2 } } do\n"
               "  for _, name in ipairs { 'find', 'match', 'gmatch', 'gsub', 'rep' } do\n"
               "    local ok, a = pcall(string[name], table.unpack(args))\n"
               "    local stock_ok, b = pcall(stock_string[name], table.unpack(args))\n"
               "    assert(ok == stock_ok and (type(b) == 'function' or plain(a) == plain(b)), a)\n"
               "  end\n"
               "end\n"
               "for _, a in ipairs { { 'ab', 3 }, { 'ab', 3, ',' }, { '', 3, ',' }, { 'a', 0 },\n"
               "    { 'a', -1 }, { 'a', 1, 'xyz' }, { 'x', 1 << 62 }, { 'xyz', 17, '--' } } do\n"
               "  local ok, x = pcall(string.rep, table.unpack(a))\n"
               "  local stock_ok, y = pcall(stock_string.rep, table.unpack(a))\n"
               "  assert(ok == stock_ok and x == y, x)\n"
               "end\n"
               "assert(('x'):rep(1 << 20, 'ab') == stock_string.rep('x', 1 << 20, 'ab'))\n"
               "assert(('a.b'):find('.', 1, true) == 2 and ('abc'):find('', 10) == nil)\n"
               "assert(select('#', ('abc'):find('', 4)) == 2)\n"));
  lua_close(L);
}

/* Each of these takes the stock functions seconds to centuries. */
static void test_bombs(void)
{
  lua_State *L = state_new(NULL);
  uint64_t start = clock_mono_ns();
  CHECK(run(L, "assert((''):rep(1 << 60) == '')\n"
               "assert(('a'):rep(200000):find(('a'):rep(100000) .. 'b', 1, true) == nil)\n"
               "assert(#('x'):rep(300000):gsub('%f[y]', '') == 300000)\n"));
  CHECK(clock_mono_ns() - start < 2000000000ULL);
  lua_close(L);
}

static int pauses, patience;

static void count_and_yield(lua_State *L, lua_KContext ctx, lua_KFunction k)
{
  pauses++;
  if (pauses > patience) luaL_error(L, "out of patience");
  if (lua_isyieldable(L)) lua_yieldk(L, 0, ctx, k);
}

static void test_pause(void)
{
  static const struct lib_host host = {.pause = count_and_yield};
  lua_State *L = state_new(&host);
  pauses = 0;
  patience = 1000;
  CHECK(run(L,
            "local function drive(f, ...)\n"
            "  local co, n = coroutine.create(f), 0\n"
            "  local r = table.pack(coroutine.resume(co, ...))\n"
            "  while coroutine.status(co) == 'suspended' do\n"
            "    n = n + 1\n"
            "    collectgarbage()\n"
            "    r = table.pack(coroutine.resume(co))\n"
            "  end\n"
            "  assert(r[1], r[2])\n"
            "  return n, table.unpack(r, 2, r.n)\n"
            "end\n"
            "local bomb, as = ('a?'):rep(16) .. ('a'):rep(16), ('a'):rep(15)\n"
            "local n, r = drive(string.find, as, bomb)\n"
            "assert(n > 5 and r == nil)\n"
            "local n, a, b, c = drive(string.find, as .. 'b' .. as .. 'a', '(' .. bomb .. ')')\n"
            "assert(n > 5 and a == 17 and b == 32 and c == as .. 'a')\n"
            "assert(select(2, drive(string.match, as .. 'a', bomb)) == as .. 'a')\n"
            "local text = ('word '):rep(50000)\n"
            "local n, out, count = drive(string.gsub, text, '(%a+)', '<%1>')\n"
            "assert(n > 0 and count == 50000)\n"
            "assert(out == stock_string.gsub(text, '(%a+)', '<%1>'))\n"
            "local n, out = drive(function()\n"
            "  local out = {}\n"
            "  for w in (as .. ' ' .. as .. 'a'):gmatch(bomb) do out[#out + 1] = w end\n"
            "  return table.concat(out, ',')\n"
            "end)\n"
            "assert(n > 5 and out == as .. 'a')\n"
            "local n, out, count = drive(string.gsub, 'a-b-c', '%a', function(c)\n"
            "  coroutine.yield()\n"
            "  return c:upper()\n"
            "end)\n"
            "assert(n == 3 and out == 'A-B-C' and count == 3)\n"
            "local mt = { __index = function(_, k) coroutine.yield() return k .. k end }\n"
            "assert(select(2, drive(string.gsub, 'ab', '.', setmetatable({}, mt))) == 'aabb')\n"));
  CHECK(pauses > 20);
  pauses = 0;
  patience = 3;
  CHECK(run(L, "local ok, e = pcall(string.find, ('a'):rep(28), ('a?'):rep(28) .. ('a'):rep(28))\n"
               "assert(ok or e:find('out of patience', 1, true))\n"
               "local ok, e = pcall(string.find, ('a'):rep(27), ('a?'):rep(28) .. ('a'):rep(28))\n"
               "assert(not ok and e:find('out of patience', 1, true), e)\n"));
  lua_close(L);
}

static void test_table_as_stock(void)
{
  lua_State *L = state_new(NULL);
  CHECK(run(
      L,
      "local function show(t)\n"
      "  local out = {}\n"
      "  for k, v in pairs(t) do out[#out + 1] = tostring(k) .. '=' .. tostring(v) end\n"
      "  stock_table.sort(out)\n"
      "  return stock_table.concat(out, ' ')\n"
      "end\n"
      "local seed = 7\n"
      "local function roll(n) seed = seed * 1103515245 + 12345 & 0x7fffffff return seed % n end\n"
      "local calls = 0\n"
      "local odd = { {}, 'x', 1.5, 0, -1, 1 << 62, math.mininteger, 3, 5, 1, 2, '2', 2.0 }\n"
      "local function plain(e)\n" /* names and numbers of arguments differ between versions */
      "  return type(e) == 'string' and e:gsub(\"argument #%d to '[^']*'\", '') or e\n"
      "end\n"
      "local function try(name, ...)\n"
      "  local a, b = { 'a', 'b', 'c', 4 }, { 'a', 'b', 'c', 4 }\n"
      "  local x = table.pack(pcall(stock_table[name], a, ...))\n"
      "  local y = table.pack(pcall(table[name], b, ...))\n"
      "  for i = 1, x.n do if x[i] == a then x[i] = 'T' end end\n"
      "  for i = 1, y.n do if y[i] == b then y[i] = 'T' end end\n"
      "  x[2], y[2] = plain(x[2]), plain(y[2])\n"
      "  if show(x) ~= show(y) or show(a) ~= show(b) then\n"
      "    error(name .. ' ' .. show { ... } .. ': ' .. show(x) .. ' | ' .. show(y)\n"
      "      .. ' / ' .. show(a) .. ' | ' .. show(b))\n"
      "  end\n"
      "  calls = calls + 1\n"
      "end\n"
      "for _ = 1, 20000 do\n"
      "  local name = ({ 'insert', 'remove', 'move', 'concat', 'unpack' })[roll(5) + 1]\n"
      "  local function any()\n"
      "    local v = roll(3) > 0 and roll(7) - 1 or odd[roll(#odd) + 1]\n"
      "    if name == 'move' and math.type(v) == 'integer' and (v > 9 or v < -9) then v = 3 end\n"
      "    return v\n"
      "  end\n"
      "  local args = {}\n"
      "  for i = 1, roll(5) do args[i] = any() end\n"
      "  if name == 'concat' and roll(2) == 0 then args[1] = ', ' end\n"
      "  if name ~= 'unpack' or math.type(args[2]) == 'integer' then\n"
      "    try(name, table.unpack(args))\n"
      "  end\n"
      "end\n"
      "assert(calls > 15000)\n"
      "for _, bad in ipairs { 1, 'x', false } do\n"
      "  for _, name in ipairs { 'insert', 'remove', 'move', 'concat', 'unpack', 'sort' } do\n"
      "    local _, a = pcall(stock_table[name], bad, 1, 1, 1)\n"
      "    local _, b = pcall(table[name], bad, 1, 1, 1)\n"
      "    assert(plain(a) == plain(b), b)\n"
      "  end\n"
      "end\n"
      "for _, e in ipairs { { 0, math.maxinteger, 1 }, { math.mininteger, 1, 1 },\n"
      "    { 1, 5, math.maxinteger - 2 } } do\n"
      "  local _, a = pcall(stock_table.move, {}, table.unpack(e))\n"
      "  local _, b = pcall(table.move, {}, table.unpack(e))\n"
      "  assert(plain(a) == plain(b), b)\n"
      "end\n"
      "local long = {}\n"
      "for i = 1, 50000 do long[i] = i % 7 == 0 and i + 0.5 or i end\n"
      "assert(table.concat(long, ', ') == stock_table.concat(long, ', '))\n"
      "long[49999] = {}\n"
      "local _, a = pcall(stock_table.concat, long)\n"
      "local _, b = pcall(table.concat, long)\n"
      "assert(a == b, b)\n"
      "local proxy = setmetatable({}, { __index = function(_, i) return 'v' .. i end,\n"
      "  __len = function() return 3 end })\n"
      "assert(table.concat(proxy, '-') == 'v1-v2-v3')\n"
      "assert(select('#', table.unpack(proxy)) == 3 and select(3, table.unpack(proxy)) == "
      "'v3')\n"));
  lua_close(L);
}

static void test_sort(void)
{
  lua_State *L = state_new(NULL);
  CHECK(run(
      L, "local seed = 99\n"
         "local function roll(n)\n"
         "  seed = seed * 6364136223846793005 + 1442695040888963407\n"
         "  return (seed >> 33) % n\n"
         "end\n"
         "local function check(t, lt)\n"
         "  local want = { table.unpack(t) }\n"
         "  stock_table.sort(want, lt)\n"
         "  table.sort(t, lt)\n"
         "  for i = 1, #want do assert(t[i] == want[i]) end\n"
         "end\n"
         "local function desc(a, b) return a > b end\n"
         "for _ = 1, 600 do\n"
         "  local n, t, range = roll(roll(5) == 0 and 500 or 30), {}, roll(50) + 1\n"
         "  for i = 1, n do t[i] = roll(range) end\n"
         "  check({ table.unpack(t) })\n"
         "  check(t, desc)\n"
         "  check(t, desc)\n"
         "  check(t)\n"
         "end\n"
         "check { 'b', 'a', 'B', '', 'ab' }\n"
         "check { 3, 1.5, -2, 1 << 60 }\n"
         "local organ = {}\n"
         "for i = 1, 3000 do organ[i] = i <= 1500 and i or 3000 - i end\n"
         "check(organ)\n"
         "for _, t in ipairs { { 1, 'x' }, { {}, {} }, { 1, 2, nil, 4 }, { true, false } } do\n"
         "  local _, a = pcall(stock_table.sort, { table.unpack(t) })\n"
         "  local _, b = pcall(table.sort, t)\n"
         "  assert(a == b, b)\n"
         "end\n"
         "-- order functions that contradict themselves: an error or a permutation, never a hang\n"
         "local orders = { function() return true end, function() return false end,\n"
         "  function() return roll(2) == 0 end, function(a, b) return a <= b end,\n"
         "  function(a, b) return (a - b) % 3 == 1 end }\n"
         "local failed = 0\n"
         "for _, lt in ipairs(orders) do\n"
         "  for _ = 1, 40 do\n"
         "    local t, sum, got = {}, 0, 0\n"
         "    for i = 1, 100 do t[i] = roll(20) sum = sum + t[i] end\n"
         "    local ok, e = pcall(table.sort, t, lt)\n"
         "    if not ok then\n"
         "      failed = failed + 1\n"
         "      assert(e == 'invalid order function for sorting', e)\n"
         "    end\n"
         "    for i = 1, 100 do got = got + t[i] end\n"
         "    assert(got == sum and #t == 100)\n"
         "  end\n"
         "end\n"
         "assert(failed > 0)\n"
         "-- an error in the middle leaves a permutation\n"
         "for limit = 1, 400, 7 do\n"
         "  local t, calls, got = {}, 0, 0\n"
         "  for i = 1, 80 do t[i] = i * 37 % 80 end\n"
         "  pcall(table.sort, t, function(a, b)\n"
         "    calls = calls + 1\n"
         "    if calls > limit then error('stop') end\n"
         "    return a < b\n"
         "  end)\n"
         "  for i = 1, 80 do got = got + t[i] end\n"
         "  assert(got == 79 * 80 // 2)\n"
         "end\n"
         "-- the order function may yield\n"
         "local co = coroutine.wrap(function()\n"
         "  local t = { 3, 1, 2 }\n"
         "  table.sort(t, function(a, b) coroutine.yield() return a < b end)\n"
         "  return table.concat(t)\n"
         "end)\n"
         "local r repeat r = co() until r\n"
         "assert(r == '123')\n"));
  lua_close(L);
}

static void on_count(lua_State *L, lua_Debug *ar)
{
  (void)ar;
  if (lua_isyieldable(L)) lua_yield(L, 0);
}

/* With lengths that lie, a hook can still take turns: nothing spins inside C. */
static void test_false_length_is_preemptible(void)
{
  static const char *const bodies[] = {
      "table.insert(setmetatable({}, { __len = function() return 1 << 50 end }), 1, 1)",
      "table.remove(setmetatable({}, { __len = function() return 1 << 50 end }), 1)",
      "table.move({}, 1, 1 << 50, 2)",
      "table.concat(setmetatable({}, { __index = function() return '' end }), '', 1, 1 << 50)",
      "table.sort({ 3, 2, 1 }, function() while true do end end)",
      "string.gsub('abc', '.', function() while true do end end)",
  };
  for (size_t i = 0; i < sizeof bodies / sizeof *bodies; i++) {
    lua_State *L = state_new(NULL);
    lua_State *co = lua_newthread(L);
    CHECK(luaL_loadstring(co, bodies[i]) == LUA_OK);
    lua_sethook(co, on_count, LUA_MASKCOUNT, 1000);
    for (int turn = 0, nres; turn < 50; turn++) {
      int status = lua_resume(co, L, 0, &nres);
      if (status != LUA_YIELD) fprintf(stderr, "%s: %s\n", bodies[i], lua_tostring(co, -1));
      CHECK(status == LUA_YIELD);
      if (status != LUA_YIELD) break;
    }
    lua_close(L);
  }
}

const struct test_case test_cases[] = {
    {"patterns as the stock library has them", test_against_stock},
    {"limits and argument errors of the stock library", test_limits_as_stock},
    {"bombs", test_bombs},
    {"a search pauses and goes on", test_pause},
    {"table functions as the stock library has them", test_table_as_stock},
    {"sort", test_sort},
    {"false lengths can be preempted", test_false_length_is_preemptible},
    {NULL, NULL},
};
