---@meta

---Tasks: several things at once in one script. They form a tree: a task waits for its children before it
---ends, and its own error cancels them. A cancel cannot be swallowed by `pcall`.
---@class task
task = {}

---A task that was started.
---@class task.Task
local Task = {}

---Starts fn(…) as a task beside the others. An error that nobody waits for is raised in the parent.
---```lua
---local t = task.spawn(function() return sb:exec "make" end)
---```
---@param fn function
---@param ... any arguments of fn
---@return task.Task t
function task.spawn(fn, ...) end

---Waits for the task's end. Returns fn's results.
---
---Errors: the task's own; `cancelled` when it was cancelled.
---```lua
---local r = t:wait()
---```
---@return any ...
function Task:wait() end

---Asks the task to end. What it waits for is ended too; its cleanup has a grace period (10 s).
---```lua
---t:cancel()
---```
function Task:cancel() end

---Waits.
---```lua
---task.sleep "250ms"
---```
---@param duration Duration
function task.sleep(duration) end

---Lets the other tasks run.
---```lua
---task.yield()
---```
function task.yield() end

---Seconds on a clock that only goes forward.
---```lua
---local start = task.now()
---```
---@return number seconds
function task.now() end

---Runs fn(…) with a time-out. Returns fn's results.
---
---Errors: `timeout`; fn's own.
---```lua
---local r = task.timeout("30s", sb.exec, sb, "make test")
---```
---@param duration Duration
---@param fn function
---@param ... any arguments of fn
---@return any ...
function task.timeout(duration, fn, ...) end

---@class task.GroupOptions
---@field limit? integer tasks at once; default no limit
---@field deadline? Duration for all of them together; default none

---Tasks that share one fate: joined where the block is left, and the first error cancels the others.
---@class task.Group
local Group = {}

---A group of tasks.
---
---Errors (at the end of the block, or in `g:wait()`): the first error of a task; `timeout` at the deadline.
---```lua
---local g <close> = task.group { limit = 3, deadline = "30s" }
---for _, name in ipairs(names) do g:spawn(work, name) end
---```
---@param opts? task.GroupOptions
---@return task.Group g
function task.group(opts) end

---Starts fn(…) in the group; waits for a free place first when `limit` are running.
---```lua
---g:spawn(function() sb:exec "make" end)
---```
---@param fn function
---@param ... any arguments of fn
---@return task.Task t
function Group:spawn(fn, ...) end

---Waits for all. Returns the first result of each, in the order of spawn.
---
---Errors: the first error of a task; `timeout` at the deadline.
---```lua
---local a, b = g:wait()
---```
---@return any ...
function Group:wait() end

---@class task.MapOptions
---@field limit? integer calls at once; default no limit
---@field deadline? Duration for all of them together; default none
---@field errors? "raise"|"collect" raise the first error and cancel the rest, or return results and errors; default "raise"

---Calls fn(item, i) for each item, several at once, and returns the results in the order of the list. A nil
---result is `json.null`.
---
---Errors: the first error of fn, unless collected; `timeout` at the deadline.
---```lua
---local sizes = task.map(files, { limit = 3, deadline = "90s" }, function(file, i)
---  return measure(file)
---end)
---```
---@param list any[]
---@param opts task.MapOptions
---@param fn fun(item: any, i: integer): any
---@return any[] results
---@return table<integer, any>? errors with errors = "collect": by index
function task.map(list, opts, fn) end

---Runs all functions at once. The first to return wins: its result is returned, the others are cancelled and
---cleaned up before that.
---
---Errors: `all_failed` with `.errors` when none returns.
---```lua
---local winner = task.race { fix_one, fix_two, fix_three }
---```
---@param fns (fun(): any)[]
---@return any ... what the winner returned
function task.race(fns) end

---@class RetryOptions
---@field max? integer attempts in all; default 3
---@field backoff? Duration pause after the first failure, doubled each time; default "1s"
---@field on? string[] error codes to repeat, besides errors with retryable = true; default none

---Calls fn(attempt) until it returns; repeats errors that may go away. Returns fn's results.
---
---Errors: the last one, or the first that is not worth another try.
---```lua
---local sb = retry(function() return sandbox.create {} end, { max = 5, on = { "capacity" } })
---```
---@param fn fun(attempt: integer): any
---@param opts? RetryOptions
---@return any ...
function retry(fn, opts) end

---@class ExitReason
---@field kind "ok"|"error"|"timeout"|"cancelled"|"limit"
---@field message? string of the error

---Registers a hook for the script's end, however it ends. Hooks run last in first out, may block, and have a
---grace period (10 s) together.
---```lua
---on_exit(function(why) print("ended: " .. why.kind) end)
---```
---@param fn fun(why: ExitReason)
function on_exit(fn) end

---@class BudgetLimits
---@field usd? number US dollars: creates, extends and commands, at `sandbox.price`
---@field seconds? Duration of sandbox life, all sandboxes together
---@field sandboxes? integer created in all

---From here on the script may use so much and no more. A create reserves its whole `timeout`, and gives back what
---the sandbox did not live. A second budget can only tighten; there is no way to lift one.
---
---Errors: `budget_exceeded`, before the create, extend or command that would pass it, with `field` saying which limit.
---```lua
---budget { usd = 0.50, seconds = 600, sandboxes = 20 }
---```
---@param limits BudgetLimits
function budget(limits) end

---Says how far the script is; shown on standard error.
---```lua
---progress(3, 10, "third file")
---```
---@param done number
---@param total? number default unknown
---@param text? string
function progress(done, total, text) end
