-- The benchmarks' report on made-up samples: statistics, targets, the page, the plot.
local assert = require "luassert"
local lfs = require "lfs"
local results = require "spec.bench.results"
local targets = require "spec.bench.targets"
local expect = require "spec.support.expect"
local files = require "spec.support.files"
local proc = require "spec.support.proc"

local function samples(...)
  local list = {}
  for _, v in ipairs { ... } do list[#list + 1] = "sample\t" .. v end
  return table.concat(list, "\n")
end

local CHURN = table.concat({
  "group\tchurn64\tA title with <angles> & more\tus each",
  "peer\tbwrap", samples(3000, 1000, 2000),
  "peer\tcrun, Docker's filter", "skipped\tnot \"here\"",
  "row\tregolith", samples(1500, 1200, 1100, 1300, 90000),
  "measured\tabc123\t2026-01-02T03:04Z",
}, "\n")
local OPS = "group\tops\tOps\tus\nrow\tworker\n" .. samples(49.5)

local scratch = os.getenv "TMPDIR" or "/tmp"

local function report(...)
  local r = proc.cli { "run", "--trust", "--allow-read", "spec/bench", "--allow-write", scratch,
    "spec/bench/report.lua", "--", ... }
  assert.equal(0, r.status, r.stderr)
  return r.stdout
end

describe("the benchmarks' report", function()
  local dir

  before_each(function() dir = files.dir "report" end)
  after_each(function() files.clean() end)

  local function collected()
    files.write(dir .. "/a.tsv", CHURN)
    files.write(dir .. "/b.tsv", OPS)
    files.write(dir .. "/machine", "cores\t2\n")
    report("collect", dir .. "/bench.json", dir .. "/machine", dir .. "/a.tsv", dir .. "/b.tsv")
    return json.decode(files.read(dir .. "/bench.json"))
  end

  it("counts samples and compares rows with their peers", function()
    local doc = collected()
    assert.equal("2", doc.machine.cores)
    local g = doc.groups[1]
    assert.same({ "churn64", "us each", "abc123", "2026-01-02T03:04Z" },
      { g.name, g.unit, g.commit, g.date })
    local ours = g.rows[3]
    assert.same({ 5, 1300, 90000, 90000 }, { ours.n, ours.median, ours.p90, ours.p99 })
    assert.same({ bwrap = 0.65 }, ours.ratios)
    assert.equal('not "here"', g.rows[2].skipped)
    assert.is_nil(g.rows[2].median)
  end)

  it("says of each target whether it is met, missed or could not be measured", function()
    local said = {}
    for _, t in ipairs(collected().targets) do
      said[#said + 1] = { t.group, t.wanted, t.met, t.skipped }
    end
    assert.same({
      { "churn64", "at most 0.5 × bwrap", false },
      { "churn64", "at most 0.167 × crun, Docker's filter", nil, "nothing to hold it against" },
      { "ops", "at most 50 us", true },
    }, said)
  end)

  it("holds a row against the fastest of several peers that are there", function()
    local group = results.group(table.concat({ "group\tg\tG\tms", "peer\ta", samples(4),
      "peer\tb", samples(2), "row\tx", samples(3) }, "\n"))
    local function value(of)
      local t = { group = "g", row = "x", at_most = 1, of = of }
      return results.document({}, { group }, { t }).targets[1].value
    end
    assert.equal(1.5, value { "a", "b" })
    assert.equal(0.75, value { "a", "gone" })
    assert.equal(0.75, value "a")
  end)

  it("refuses a line that it does not know", function()
    local ok, why = pcall(results.group, "group\tg\tG\tms\nrwo\tx")
    assert.is_false(ok)
    expect.contains(why, "not a line of samples: rwo\tx")
  end)

  it("draws a page with every row and every miss", function()
    collected()
    report("draw", dir .. "/bench.json", dir .. "/bench.md", dir .. "/bench.svg")
    local page = files.read(dir .. "/bench.md")
    for _, text in ipairs { "1 met, 1 missed", "| **missed** |", "![", "(bench.svg)",
      "| regolith | 1.30 ms each | 90.0 ms each |", "0.65 × bwrap", "| worker | 49.5 µs |",
      "Group `churn64`, at abc123", 'skipped |  |  |  | not "here" |' } do
      expect.contains(page, text)
    end
  end)

  it("draws a plot that is well-formed and shows every row and target", function()
    collected()
    report("draw", dir .. "/bench.json", dir .. "/bench.md", dir .. "/bench.svg")
    local r = proc.run { "python3", "-c", [[
import sys, xml.dom.minidom as dom
d = dom.parse(sys.argv[1])
print(d.documentElement.namespaceURI)
for t in d.getElementsByTagName("text"): print("text", t.firstChild.data)
both = d.getElementsByTagName("rect") + d.getElementsByTagName("line")
for t in both: print(t.getAttribute("class"))
assert "http" not in open(sys.argv[1]).read().replace(d.documentElement.namespaceURI, "")
]], dir .. "/bench.svg" }
    assert.equal(0, r.status, r.stderr)
    for _, text in ipairs { "http://www.w3.org/2000/svg", "text A title with <angles> & more",
      "text bwrap\n", "text crun, Docker's filter\n", 'text skipped: not "here"', "text regolith\n",
      "text 1.30 ms each", "text worker\n" } do
      expect.contains(r.stdout, text)
    end
    local _, ours = r.stdout:gsub("\nours", "")
    local _, missed = r.stdout:gsub("\nmissed", "")
    local _, met = r.stdout:gsub("\nmet", "")
    assert.same({ 2, 1, 1 }, { ours, missed, met })
  end)

  it("prints the groups that are asked for", function()
    collected()
    local text = report("print", dir .. "/bench.json", "churn")
    expect.contains(text, "wanted: regolith, at most 0.5 × bwrap; 0.65: missed")
    assert.is_nil(text:find("worker", 1, true))
  end)

  it("has targets of rows that there are", function()
    local source = {}
    for name in lfs.dir "spec/bench" do
      if name:find "%.[cs]h?$" or name == "create.lua" then
        source[#source + 1] = files.read("spec/bench/" .. name)
      end
    end
    source = table.concat(source)
    for _, t in ipairs(targets) do
      local names = type(t.of) == "table" and t.of or { t.of }
      for _, name in ipairs { t.group, t.row, table.unpack(names) } do
        -- Rows of both modes, and of many one after another, are written once.
        local text = name:gsub(", in process$", ""):gsub(", worker$", "")
        assert.is_truthy(source:find(text, 1, true), name)
      end
    end
  end)
end)
