-- What is wanted of the rows. Each: group, row, at_most or at_least a number, of the median (stat:
-- "p99" for a tail), in the group's unit, or as a multiple of the median of another row ("of"; of
-- several, of the fastest).
local BARE = "posix_spawn + capture"
local list = {}

local function want(group, row, bound)
  bound.group, bound.row = group, row
  list[#list + 1] = bound
end

for _, group in ipairs { "oneshot_cold", "oneshot_warm" } do
  want(group, "regolith exec", { at_most = 1.0, of = "bwrap --unshare-all" })
  want(group, "regolith exec", { at_most = 0.25, of = "crun run, Docker's filter" })
end
for _, mode in ipairs { "worker", "in process" } do
  want("exec_cold", "sb:exec, " .. mode, { at_most = 1.3, of = BARE })
  want("exec_warm", "sb:exec, " .. mode, { at_most = 1.1, of = BARE })
  for _, group in ipairs { "life_cold", "life_warm" } do
    local row = "create, exec, terminate, " .. mode
    want(group, row, { at_most = 2.5, of = BARE })
    want(group, row, { at_most = 15, of = BARE, stat = "p99" })
  end
end
for _, row in ipairs { "sb:exec", "create, exec, terminate" } do
  want("heavy", row .. ", 500 MiB", { at_most = 1.2, of = row })
end
-- Twice and six times as many a second.
want("churn64", "regolith", { at_most = 1 / 2, of = "bwrap" })
want("churn64", "regolith", { at_most = 1 / 6, of = "crun, Docker's filter" })

want("memory", "idle sandbox", { at_most = 0.9 * 1024 })
want("memory", "idle sandbox, network open", { at_most = 1.1 * 1024 })
want("many", "all ended (ms)", { at_most = 5000 })
want("many", "memory cgroups left 5 s later", { at_most = 0 })
for _, bomb in ipairs { "output", "fork", "memory", "disk", "inodes", "network" } do
  want("bombs", bomb, { at_most = 2, of = "quiet" })
end

want("scripts", "empty, 1,000 one after another, workers", { at_most = 1000 })
want("workers", "idle script, private memory of its process", { at_most = 250 })
want("ops", "worker", { at_most = 50 })
for _, mode in ipairs { "worker", "in process" } do
  want("output", "to a callback, " .. mode, { at_least = 300 })
end

want("image_pull", "regolith image pull",
  { at_most = 0.7, of = { "skopeo copy + umoci unpack", "podman pull" } })
want("image_peak", "regolith image pull", { at_most = 64 })
want("image_create", "image of one layer", { at_most = 1.2, of = "host" })
want("image_create", "image of twelve layers", { at_most = 1.2, of = "host" })

want("serve_healthz", "regolith serve", { at_most = 1.2, of = "nginx, the same body" })
want("serve_status", "regolith serve", { at_most = 2.5, of = "nginx, a body of the same size" })
want("serve_life", "over HTTP", { at_most = 1.5, of = "from Lua in process" })

return list
