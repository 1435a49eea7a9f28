---@meta

---Isolated sandboxes: create them, run commands in them, end them. Every call blocks the calling task only.
---```lua
---local sandbox = require "sandbox"
---```
---@class sandbox
local sandbox = {}

---@class sandbox.CreateOptions
---@field engine? string which engine makes it; default "local", under `regolith run`
---@field image? string what is inside; default "host": this machine's programs, read-only
---@field gpu? Gpu|Gpu[] one GPU, or several in order of preference; default none
---@field cpu? number processors, at least 0.125; default 1
---@field memory? Size memory in MiB, at least 128; default 1024
---@field disk? Size space for files in MiB; default 1024
---@field pids? integer processes and threads at once; default 512
---@field timeout? Duration life-time in whole seconds, 1 to 86400, never clamped; default 300
---@field idle_timeout? Duration ends it after so many seconds without a running command; 0 = never; default 0
---@field entrypoint? string[] a command that the sandbox runs and ends with; default none
---@field ready? sandbox.Ready when the sandbox counts as ready; default at once
---@field env? table<string, string> environment of its commands; default none
---@field cwd? string working directory of its commands, absolute; default the image's
---@field user? string|integer user of its commands; default the image's
---@field network? "none"|"open"|sandbox.NetworkRules what it may reach; default "none"
---@field unencrypted_ports? integer[] ports to publish as they are; default none
---@field encrypted_ports? integer[] ports to publish with TLS; default none
---@field volumes? sandbox.Volume[] folders that are there before and after it; default none
---@field tags? table<string, string> your own marks, for sandbox.list; default none
---@field app_id? string groups sandboxes; default "default"
---@field name? string a name that no other living sandbox has; default none

---@class sandbox.Ready
---@field tcp integer ready once this port accepts connections

---@class sandbox.NetworkRules
---@field allow string[] names, addresses and ranges: { "*.example.org", "10.0.0.0/8:443" }

---@class sandbox.Volume
---@field source string the name of the volume, as it was granted: `--volume NAME=DIR` or `--allow-volume NAME`
---@field target string where it appears, an absolute path; made where it is missing
---@field readonly? boolean default false, or true where it was granted with `:ro`

---@class sandbox.ExecOptions
---@field timeout? Duration time-out of the command; past it, all that it started ends; default the sandbox's remaining life
---@field cwd? string working directory, absolute; default the sandbox's
---@field env? table<string, string> over the sandbox's environment; default none
---@field user? string|integer default the sandbox's
---@field stdin? string what the command reads; default empty
---@field max_output? Size kept of each stream in MiB (first and last half); default "8MiB"
---@field on_overflow? "truncate"|"kill" past max_output: count on, or end the command; default "truncate"
---@field on_stdout? fun(chunk: string) gets raw output as it comes; an error in it ends the command
---@field on_stderr? fun(chunk: string) the same for standard error
---@field check? boolean raise `command_failed` unless the command exits with 0; default false

---@class sandbox.RunOptions: sandbox.ExecOptions
---@field create? sandbox.CreateOptions what sandbox.create gets; default {}

---How a command ended: by itself, by a signal, by its time-out, out of memory, by printing too much, with its
---sandbox (ended by terminate, or by life-time or idle time), by a cancel, or in a way that nobody saw.
---@alias sandbox.Reason "exited"|"signal"|"timeout"|"oom"|"output_limit"|"terminated"|"sandbox_timeout"|"cancelled"|"unknown"

---A connection that a sandbox's network did not allow.
---@class sandbox.Refused
---@field protocol "tcp"|"udp"|"dns"
---@field address? string where to
---@field port? integer
---@field name? string with "dns": the name that was asked for
---@field times integer so many in a moment; this was one of them

---How a command ended. Never guessed: `exit_code` is nil unless `reason` is "exited".
---@class sandbox.Result
---@field ok boolean exited with 0
---@field reason sandbox.Reason exited, signal, timeout, oom, output_limit, terminated, sandbox_timeout, cancelled or unknown
---@field exit_code? integer only when reason is "exited"; 127 = command not found, 126 = not executable
---@field signal? string a name, "SIGKILL"
---@field stdout string what was printed, raw bytes
---@field stderr string what was printed to standard error
---@field truncated { stdout: boolean, stderr: boolean } whether the middle was left out
---@field stdout_bytes integer printed in all, kept or not
---@field stderr_bytes integer printed in all, kept or not
---@field duration_ms integer milliseconds from start to end of the command
---@field usage { cpu_ms: integer, max_rss_mib: integer } what it used
---@field refused? sandbox.Refused[] connections that its network did not allow, since the result before
local Result = {}

---Returns the result when the command exited with 0.
---
---Errors: `command_failed` otherwise, with the result in `err.result`.
---```lua
---print(sb:exec("date"):check().stdout)
---```
---@return sandbox.Result self
function Result:check() end

---@class sandbox.Status
---@field sandbox_id string
---@field status "pending"|"running"|"terminated"
---@field state "created"|"scheduled"|"started"|"ready"|"finished"|"terminated"
---@field reason? string why it ended
---@field created_at string "YYYY-MM-DDTHH:MM:SSZ"
---@field expires_at string when its life-time ends
---@field commands_executed integer commands accepted so far
---@field config table every option, with its default
---@field tags table<string, string>
---@field cost number US dollars
---@field returncode? integer how its entrypoint ended
---@field entrypoint? sandbox.Entrypoint what its entrypoint printed

---@class sandbox.Entrypoint
---@field running boolean
---@field stdout string the first and the last 4 KiB
---@field stderr string the first and the last 4 KiB
---@field truncated boolean

---@class sandbox.Change
---@field path string
---@field kind "added"|"modified"|"deleted"
---@field type "file"|"directory"|"symlink"|"special" of what is deleted: what it was

---@class sandbox.Snapshot
---@field image string for `sandbox.create`
---@field name? string as it was given

---A handle of one sandbox. Its fields are the last known values; reading one never asks the engine.
---`local sb <close> = …` ends the sandbox where the block is left.
---@class sandbox.Sandbox
---@field sandbox_id string "sb_" and 10 characters
---@field app_id string
---@field name? string
---@field engine string
---@field state string
---@field created_at string "YYYY-MM-DDTHH:MM:SSZ"
---@field expires_at string
---@field config table every option, with its default
---@field tags table<string, string>
---@field cost number US dollars
local Sandbox = {}

---Creates a sandbox and waits until it runs. It belongs to the script: whatever happens to the script, the
---sandbox ends with it; `<close>` ties it to a block.
---
---Errors: `invalid_argument`, `image_not_found`, `unsupported` (the engine lacks something asked for),
---`capacity`, `engine_unavailable`, `limit`, `budget_exceeded`, `conflict` (the name is taken).
---```lua
---local sb <close> = sandbox.create { image = "host", memory = "512MiB", timeout = "5m" }
---```
---@param opts? sandbox.CreateOptions
---@return sandbox.Sandbox sb
function sandbox.create(opts) end

---Runs a command and waits until it has ended. A list is the program and its arguments; a string runs under
---/bin/sh -c; options stand in a second table, or as named keys beside the list. Commands of one sandbox
---run beside each other. Failure is data, not an error: look at the result, or ask for `check`.
---
---Errors: `invalid_argument`, `command_failed` (with check), `sandbox_terminated`, `sandbox_timeout`,
---`exec_failed`; and whatever a callback raises.
---```lua
---local r = sb:exec { "pytest", "-q", timeout = "2m" }
---local r = sb:exec("echo hi | wc -c", { check = true })
---```
---@param command string|string[]|sandbox.ExecOptions
---@param opts? sandbox.ExecOptions
---@return sandbox.Result result
function Sandbox:exec(command, opts) end

---Asks the engine how the sandbox is, and refreshes the handle's fields. Works on an ended one, for 24 hours.
---
---Errors: `sandbox_not_found`.
---```lua
---print(sb:status().commands_executed)
---```
---@return sandbox.Status status
function Sandbox:status() end

---Ends the sandbox; returns once its last process is dead. One that has ended already is as good.
---
---Errors: `sandbox_not_found`.
---```lua
---sb:terminate()
---```
function Sandbox:terminate() end

---Lets the sandbox outlive the script. `sandbox.get` finds it again, by its id.
---
---Errors: `unsupported` where it would not (the local engine under `regolith run`).
---```lua
---sb:detach()
---```
function Sandbox:detach() end

---Adds to the life-time, up to 86400 seconds from creation.
---
---Errors: `invalid_argument`, `sandbox_terminated`, `sandbox_timeout`.
---```lua
---sb:extend "10m"
---```
---@param seconds Duration whole seconds to add
---@return sandbox.Status status
function Sandbox:extend(seconds) end

---@class sandbox.SpawnOptions
---@field timeout? Duration time-out of the command; past it, all that it started ends; default the sandbox's remaining life
---@field cwd? string working directory, absolute; default the sandbox's
---@field env? table<string, string> over the sandbox's environment; default none
---@field user? string|integer default the sandbox's
---@field stdin? string all that the command reads; default what p:write gives it, until p:close_stdin
---@field max_output? Size kept of each stream in MiB (first and last half); default "8MiB"
---@field on_overflow? "truncate"|"kill" past max_output: count on, or end the command; default "truncate"
---@field check? boolean p:wait raises `command_failed` unless the command exits with 0; default false

---Starts a command and goes on as soon as it runs. It ends with its sandbox, if not before. While it runs the sandbox
---is not idle. 1,024 such commands are remembered of a script, and up to 256 MiB of their output; then those that ended
---first are forgotten.
---
---Errors: `invalid_argument`, `limit`, `sandbox_terminated`, `sandbox_timeout`, `exec_failed`, `unsupported` on engines
---without it.
---```lua
---local server = sb:spawn { "python3", "-m", "http.server", "8000" }
---```
---@param command string|string[]|sandbox.SpawnOptions
---@param opts? sandbox.SpawnOptions
---@return sandbox.Process process
function Sandbox:spawn(command, opts) end

---A command that runs.
---@class sandbox.Process
---@field pid? integer its process, as the sandbox's own see it
---@field exec integer its number among the commands of its sandbox
---@field sandbox_id string
local Process = {}

---Waits for the end. Asked again it gives the same result, also when its sandbox is gone.
---
---Errors: `command_failed` (with check), `not_found` (it was forgotten).
---```lua
---local r = p:wait()
---```
---@return sandbox.Result result
function Process:wait() end

---Sends a signal to the command. Without one, ends it and all that it started, and returns when they are gone. A
---command that has ended already is as good.
---
---Errors: `invalid_argument`.
---```lua
---p:kill "SIGTERM"
---```
---@param signal? string|integer "SIGTERM", "TERM" or a number; default all of it ends
function Process:kill(signal) end

---Writes to its standard input. Returns when there is room for more: a command that does not read keeps the task
---waiting.
---
---Errors: `conflict` (the input is closed, or the command has ended).
---```lua
---p:write "hello\n"
---```
---@param data string
function Process:write(data) end

---Ends its standard input.
---```lua
---p:close_stdin()
---```
function Process:close_stdin() end

---Iterates over the lines that it prints, from the first on, as they come, without their ends. While nobody reads, output
---is kept as max_output says, and `p:wait` gives it in any case. A loop that reads too slowly slows the command down; one
---that was left does so until somebody waits for the command.
---
---Errors: `limit` once where output was not read in time and is gone; a next loop goes on behind it. `conflict` (two
---tasks read the same output).
---```lua
---for line in p:lines() do print(line) end
---```
---@param stream? "stdout"|"stderr" default "stdout"
---@return fun(): string? next_line
function Process:lines(stream) end

---Files of a sandbox: every call does what a command of the sandbox could do, as the sandbox's user (or `user`),
---within its disk and its other limits, but needs no program inside. A relative path begins in the sandbox's
---working directory. A failure names the path: `err.field` is "path".
---@class sandbox.FileOptions
---@field user? string|integer as whom; default the sandbox's
---@field timeout? Duration gives up after so long; default never

---@class sandbox.ReadOptions: sandbox.FileOptions
---@field max? Size refuses a longer file, in MiB; default "16MiB", with on_data none
---@field on_data? fun(bytes: string) gets the file in pieces; an error in it ends the read

---@class sandbox.WriteOptions: sandbox.FileOptions
---@field mode? string|integer permission bits, as octal text; default those of the file that it replaces, or "0644"

---@class sandbox.MkdirOptions: sandbox.FileOptions
---@field mode? string|integer permission bits, as octal text; default "0755"

---@class sandbox.StatOptions: sandbox.FileOptions
---@field follow? boolean what a link leads to, not the link itself; default true

---@class sandbox.DownloadOptions: sandbox.FileOptions
---@field max? Size refuses more data than that, in MiB; default "1GiB"

---@class sandbox.FileInfo
---@field name string the last part of the path
---@field type "file"|"directory"|"link"|"fifo"|"socket"|"device"
---@field size integer bytes
---@field mode string permission bits as octal text, "0644"
---@field mtime integer seconds since 1970, as os.time counts them
---@field uid integer
---@field gid integer
---@field target? string of a link

---@class sandbox.CopyReport
---@field files integer
---@field directories integer
---@field links integer
---@field bytes integer
---@field skipped { type: string, path: string }[] what does not travel, up to 100: pipes, sockets, devices, what is mounted below, and links that lead out
---@field skipped_total integer how many there were

---Reads a file of the sandbox, whatever bytes are in it.
---
---Errors: `not_found`, `denied`, `conflict` (a directory), `invalid_argument` (a pipe or device), `payload_too_large`
---(more than max), `unsupported` on engines without it.
---```lua
---local text = sb:read "/tmp/result"
---sb:read("/tmp/big.tar", { on_data = function(bytes) out:write(bytes) end })
---```
---@param path string
---@param opts? sandbox.ReadOptions
---@return string|integer data the bytes; with on_data their number
function Sandbox:read(path, opts) end

---Writes a file in the sandbox, as a whole: until it is complete, and if it fails, the old one stays. Owner and mode
---of a file that it replaces stay too. A function is asked for more until it gives nil.
---
---Errors: `not_found` (no such directory), `denied`, `conflict`, `invalid_argument`, `payload_too_large` (the
---sandbox's disk is full), `unsupported` on engines without it.
---```lua
---sb:write("/tmp/run.sh", "echo hi\n", { mode = "0755" })
---```
---@param path string
---@param data string|function
---@param opts? sandbox.WriteOptions
function Sandbox:write(path, data, opts) end

---What lies in a folder of the sandbox, by name; up to 100,000 entries. Links are not followed.
---
---Errors: `not_found`, `denied`, `conflict` (no folder), `unsupported` on engines without it.
---```lua
---for _, entry in ipairs(sb:list "/tmp") do print(entry.name, entry.type, entry.size) end
---```
---@param path string
---@param opts? sandbox.FileOptions
---@return sandbox.FileInfo[] entries
function Sandbox:list(path, opts) end

---What a path of the sandbox is.
---
---Errors: `not_found`, `denied`, `unsupported` on engines without it.
---```lua
---print(sb:stat("/tmp").mode)
---```
---@param path string
---@param opts? sandbox.StatOptions
---@return sandbox.FileInfo info
function Sandbox:stat(path, opts) end

---Makes a folder in the sandbox, and those above it. One that is there is as good.
---
---Errors: `denied`, `conflict` (something else is there), `unsupported` on engines without it.
---```lua
---sb:mkdir "/srv/app/logs"
---```
---@param path string
---@param opts? sandbox.MkdirOptions
function Sandbox:mkdir(path, opts) end

---Removes a file, a link, or a folder with all that is in it.
---
---Errors: `not_found`, `denied`, `conflict` (a mount, such as a volume, is in it), `unsupported` on engines without it.
---```lua
---sb:remove "/srv/app/logs"
---```
---@param path string
---@param opts? sandbox.FileOptions
function Sandbox:remove(path, opts) end

---Copies a file, or a folder with all below it, from a folder of this machine that was granted with `--allow-read`.
---`target` is the path that it gets; a folder that is there is filled further. Links are copied as links.
---
---Errors: `not_found`, `denied`, `conflict`, `invalid_argument`, `payload_too_large` (the sandbox's disk is full),
---`unsupported` on engines without it; `err.field` is "source" or "target".
---```lua
---sb:upload("src", "/srv/src")
---```
---@param source string on this machine
---@param target string in the sandbox
---@param opts? sandbox.FileOptions
---@return sandbox.CopyReport report
function Sandbox:upload(source, target, opts) end

---Copies a file, or a folder with all below it, to a folder of this machine that was granted with `--allow-write`.
---`target` is the path that it gets; a folder that is there is filled further. Nothing is written through a link, and
---a link that leads out of what is copied is skipped; the report says which. What is complete when a copy fails stays.
---
---Errors: `not_found`, `denied`, `conflict`, `payload_too_large` (more than max), `unsupported` on engines without
---it; `err.field` is "source" or "target".
---```lua
---sb:download("/srv/out", "out")
---```
---@param source string in the sandbox
---@param target string on this machine
---@param opts? sandbox.DownloadOptions
---@return sandbox.CopyReport report
function Sandbox:download(source, target, opts) end

---Waits until the sandbox is ready: until the port of `ready` accepts connections on the sandbox's own loopback. Each try
---connects and hangs up at once. Without `ready` a sandbox is ready as soon as it runs.
---
---Errors: `timeout`; `sandbox_terminated` when the sandbox ends first, with the last line of its entrypoint in the hint.
---```lua
---local sb <close> = sandbox.create {
---  entrypoint = { "python3", "-m", "http.server", "8000" }, ready = { tcp = 8000 },
---}
---sb:wait_ready "10s"
---```
---@param timeout? Duration default: the sandbox's remaining life
---@return sandbox.Status status
function Sandbox:wait_ready(timeout) end

---The address under which a port of the sandbox can be reached: one of the `unencrypted_ports` that it was created with.
---
---Errors: `invalid_argument` for any other.
---```lua
---print(sb:url(8000))
---```
---@param port integer
---@return string url
function Sandbox:url(port) end

---What differs from the image, in the order of paths: a directory is told by itself only when it is new, was given other
---permissions or another owner, or is gone, and then with all that was in it.
---
---Errors: `unsupported` for the image `host`, which is this machine itself; `payload_too_large`.
---```lua
---for _, change in ipairs(sb:diff()) do print(change.kind, change.path) end
---```
---@return sandbox.Change[] changes
function Sandbox:diff() end

---Makes an image of the sandbox's files as they are now; it goes on running, and what it writes meanwhile may be caught in the
---middle. Without a name the image lives until `sandbox.forget` or the script's end, 16 at once; with one it stays in the
---store. `sandbox.create { image = snapshot.image }` makes sandboxes of it.
---
---Errors: `denied` for a name that was not granted (`--allow-commit`), `unsupported` for the images `host` and `dir:PATH`, `limit`.
---```lua
---local ready = sb:snapshot()
---local copy <close> = sandbox.create { image = ready.image }
---```
---@param opts? { name: string? }
---@return sandbox.Snapshot snapshot
function Sandbox:snapshot(opts) end

---The same with a name, which it needs: an image that stays. `regolith image ls` has it, `regolith image export` writes it.
---
---Errors: those of `sb:snapshot`; `invalid_argument`.
---```lua
---sb:commit { name = "mine/with-tools:1" }
---```
---@param opts { name: string }
---@return sandbox.Snapshot image
function Sandbox:commit(opts) end

---Makes n sandboxes with the same options, but for the name, that start from this one's files. Processes are not copied: an
---entrypoint starts anew.
---
---Errors: those of `sb:snapshot` and `sandbox.create`; then none of them is left.
---```lua
---local copies = sb:fork(3)
---```
---@param n? integer default 1
---@return sandbox.Sandbox[] copies
function Sandbox:fork(n) end

---A handle for one of this script's sandboxes by its id. On an engine elsewhere (`opts.engine`, else the default one) also
---for one that was detached, or made by others with the same key: it is used, and lives on when the script ends.
---
---Errors: `sandbox_not_found`, `sandbox_terminated` (it has ended, elsewhere), `denied`, `engine_unavailable`.
---```lua
---local sb = sandbox.get "sb_0123456789"
---print(sandbox.get("sb_9876543210", { engine = "gpu-box" }):exec("uptime").stdout)
---```
---@param id string
---@param opts? { engine: string? }
---@return sandbox.Sandbox sb
function sandbox.get(id, opts) end

---@class sandbox.ListFilter
---@field tags? table<string, string> all of these
---@field app_id? string
---@field name? string
---@field engine? string
---@field state? string "running", "terminated", …; default all that are alive

---Handles of this script's sandboxes: all that are alive, or those that match.
---```lua
---for _, sb in ipairs(sandbox.list { tags = { run = "42" } }) do sb:terminate() end
---```
---@param filter? sandbox.ListFilter
---@return sandbox.Sandbox[] list
function sandbox.list(filter) end

---As `sb:exec`, by id.
---```lua
---sandbox.exec(id, { "true" })
---```
---@param id string
---@param command string|string[]|sandbox.ExecOptions
---@param opts? sandbox.ExecOptions
---@return sandbox.Result result
function sandbox.exec(id, command, opts) end

---As `sb:status`, by id.
---```lua
---print(sandbox.status(id).status)
---```
---@param id string
---@return sandbox.Status status
function sandbox.status(id) end

---As `sb:terminate`, by id.
---```lua
---sandbox.terminate(id)
---```
---@param id string
function sandbox.terminate(id) end

---Creates a sandbox, runs one command in it and ends it.
---
---Errors: those of sandbox.create and `sb:exec`.
---```lua
---local r = sandbox.run("uname -s", { create = { memory = 256 }, timeout = 60 })
---```
---@param command string|string[]|sandbox.RunOptions
---@param opts? sandbox.RunOptions
---@return sandbox.Result result
function sandbox.run(command, opts) end

---@class sandbox.PriceOptions
---@field engine? string default the default engine
---@field gpu? Gpu|Gpu[]
---@field timeout? Duration default 300

---What a create with these options would cost: US dollars. The local engine costs 0 unless configured.
---```lua
---print(sandbox.price { gpu = "T4", timeout = "90m" })
---```
---@param opts? sandbox.PriceOptions
---@return number usd
function sandbox.price(opts) end

---@class sandbox.Tier
---@field gpu string "T4", "L4", …; a card that is of no tier: its own name, "NVIDIA L40S"
---@field cpu? integer processors of its envelope
---@field memory? integer MiB of its envelope
---@field usd_burst? number US dollars per create of up to 300 s
---@field usd_per_hour? number US dollars per hour beyond that
---@field engines string[] the engines that have it
---@field count? integer how many there are, where an engine knows; nil: none
---@field free? integer how many of them no sandbox has

---Lets go of an image without a name that `sb:snapshot` made: it is removed when the last sandbox made of it ends.
---
---Errors: `image_not_found`.
---```lua
---sandbox.forget(ready.image)
---```
---@param image string
function sandbox.forget(image) end

---The GPU tiers, and further cards that are here: name, envelope, prices, which engines have it, and how many are free.
---```lua
---for _, tier in ipairs(sandbox.gpus()) do print(tier.gpu, tier.usd_per_hour, tier.free or 0) end
---```
---@return sandbox.Tier[] tiers
function sandbox.gpus() end

---@class sandbox.EngineInfo
---@field name string what `engine =` takes
---@field type string how it makes sandboxes
---@field default boolean used where none is named
---@field priced boolean creates cost money
---@field features string[] gpu, network, detach, snapshot, volumes, ports, files

---The engines that this program has.
---```lua
---for _, engine in ipairs(sandbox.engines()) do print(engine.name) end
---```
---@return sandbox.EngineInfo[] engines
function sandbox.engines() end

---@class sandbox.PoolOptions
---@field size? integer how many are kept ready, default 1
---@field create? sandbox.CreateOptions
---@field reuse? boolean a sandbox goes back after a use that did not fail; default false

---@class sandbox.Pool
local Pool = {}

---Calls fn with a sandbox of the pool and ends it afterwards, however fn ends. The next one is made meanwhile.
---
---Errors: those of `sandbox.create`, and fn's own; `conflict` once the pool is closed.
---```lua
---local out = pool:use(function(sb) return sb:exec("uname").stdout end)
---```
---@param fn fun(sb: sandbox.Sandbox): any
---@return any ... what fn returned
function Pool:use(fn) end

---Ends the sandboxes that wait. Happens by itself for `local pool <close>`, and at the script's end.
---```lua
---pool:close()
---```
function Pool:close() end

---Sandboxes made beforehand, for scripts that need many short ones: each use gets a fresh one that is ready.
---
---Errors: `invalid_argument`.
---```lua
---local pool <close> = sandbox.pool { size = 4, create = { memory = 256 } }
---local r = pool:use(function(sb) return sb:exec "true" end)
---```
---@param opts? sandbox.PoolOptions
---@return sandbox.Pool pool
function sandbox.pool(opts) end

---Calls fn at each event of this script's sandboxes: `before_create(opts)`, which may change the options or
---raise to refuse; `created(sb)`; `exec_done(sb, result)`; `connection_refused(sb, refused)`, with the
---result of the next command; `terminated(info)`. Returns a function that takes the hook back.
---```lua
---sandbox.on("exec_done", function(sb, r) log.info(r.reason) end)
---```
---@param event "before_create"|"created"|"exec_done"|"connection_refused"|"terminated"
---@param fn function
---@return fun() off
function sandbox.on(event, fn) end

return sandbox
