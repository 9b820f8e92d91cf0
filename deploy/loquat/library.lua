---@meta
-- What scripts see (docs/lua.md), for the Lua language server. `loquat types` puts it beside the messages of proto/.
-- tests/lua/types compares it with the libraries as they are.

---@alias Error
---| "timeout"
---| "unavailable"
---| "busy"
---| "not_found"
---| "bad_request"
---| "denied"
---| "failed"
---| "unknown"
---@alias Effect
---| "none"
---| "done"
---| "unknown"

---A player's connection, as handlers get it.
---@class Session
---@field uid string
---@field sid integer
---@field connector string
---@field push fun(self: Session, route: string, message: table)
---@field kick fun(self: Session, reason?: string)
---@field set fun(self: Session, name: string, value: string)

---What a remote is told of its call.
---@class Call
---@field key string
---@field from string
---@field once? string

---@class CallOptions
---@field timeout_ms? integer
---@field once? string
---@field instance? string
---@field worker? integer
---@field anywhere? boolean

---@class Timer
---@field cancel fun(self: Timer): boolean

---The worker's own table, kept by a reload.
---@type table
state = {}

---@class app
---@field rpc app.rpc yields
---@field send app.rpc forgets
---@field instance string
---@field worker integer
---@field workers integer
---@field epoch integer
app = {}
---@param target table a session, or a list of them
---@param route string
---@param message table
---@param options? {supersedes?: string}
function app.push(target, route, message, options) end
---A room of this worker: sessions that are pushed to together.
---@class Room
---@field name string
---@field count integer
---@field join fun(self: Room, session: table): boolean?, Error?, string?
---@field leave fun(self: Room, session: table): boolean
---@field member fun(self: Room, uid: string): table?
---@field members fun(self: Room, max?: integer): table[]
---@field push fun(self: Room, route: string, message: table, options?: {but?: table, supersedes?: string})
---@field close fun(self: Room)
---@param name string
---@param options? {max?: integer}
---@return Room
function app.room(name, options) end
---@param session table
---@return string[]
function app.rooms(session) end
---@param session table
---@param reason? string
function app.kick(session, reason) end
---@param fn function
function app.task(fn, ...) end
---Yields until somebody wakes the queue.
---@param queue table
function app.wait(queue) end
---@param queue table
function app.wake(queue) end
---@generic T: boolean|number|string
---@param path string
---@param otherwise T
---@return T
function app.config(path, otherwise) end
---@param service string
---@param key string
---@return string?
function app.owner(service, key) end
---@param key string
---@return boolean
---@return boolean
function app.owns(key) end
---@param service string
---@return {id: string, workers: integer}[]
function app.instances(service) end
---@param name string
---@return string
function app.key(name) end
---@param key string
---@param text string
---@return string
function app.hmac(key, text) end
---@param a string
---@param b string
---@return boolean
function app.same(a, b) end
---@return string
function app.nonce() end

---@class db
db = {}
---@param key string
function db.key(key) end
---@param sql string
---@param ... nil|boolean|number|string
function db.exec(sql, ...) end
---@param table table
---@param field any
---@param value any
function db.set(table, field, value) end
---Yields until what was collected is durable.
---@return true?, Error?, string?, Effect?
function db.commit() end
function db.relaxed() end
function db.sync() end
---Yields.
---@param sql string
---@param ... nil|boolean|number|string
---@return table[]?, Error?, string?
function db.query(sql, ...) end
---Yields, once the replay has passed the key's last change.
---@param key string
---@param sql string
---@param ... nil|boolean|number|string
---@return table[]?, Error?, string?
function db.load(key, sql, ...) end
---Yields.
---@param key string
---@return true?, Error?, string?
function db.load_once(key) end

---@class cache
cache = {}
---@param key string
---@return any
function cache.get(key) end
---@param key string
---@param value any
---@param seconds? number
---@return true?, Error?
function cache.put(key, value, seconds) end
---@param key string
function cache.delete(key) end

---@class clock
clock = {}
---@return integer
function clock.now_ms() end
---@return integer
function clock.wall_ms() end
---@param ms number
---@param fn function|string
---@return Timer
function clock.after(ms, fn, ...) end
---@param ms number
---@param fn function|string
---@return Timer
function clock.every(ms, fn, ...) end
---@param when string "minute hour day month weekday", UTC
---@param fn function|string
---@return Timer
function clock.cron(when, fn, ...) end
---Yields.
---@param ms number
function clock.sleep(ms) end

---@class log
log = {}
---@param event string
---@param what? table|string
function log.debug(event, what, ...) end
---@param event string
---@param what? table|string
function log.info(event, what, ...) end
---@param event string
---@param what? table|string
function log.warn(event, what, ...) end
---@param event string
---@param what? table|string
function log.error(event, what, ...) end

---@class json
---@field null any
json = {}
---@param value any
---@return string
function json.encode(value) end
---@param text string
---@return any, string?
function json.decode(text) end
---@param list table
---@return table
function json.array(list) end

---@class Random
---@field int fun(self: Random, from: integer, to: integer): integer
---@field float fun(self: Random): number
---@field pick fun(self: Random, list: table): any
---@field shuffle fun(self: Random, list: table): table
---@class random
random = {}
---@param seed? integer
---@return Random
function random.new(seed) end

---@class Counter
---@field add fun(self: Counter, n?: integer)
---@class Gauge
---@field set fun(self: Gauge, value: integer)
---@class Histogram
---@field observe fun(self: Histogram, seconds: number)
---@class metrics
metrics = {}
---@param name string ends in _total
---@param help string
---@param labels? table<string, string>
---@return Counter
function metrics.counter(name, help, labels) end
---@param name string
---@param help string
---@param labels? table<string, string>
---@return Gauge
function metrics.gauge(name, help, labels) end
---@param name string ends in _seconds
---@param help string
---@param labels? table<string, string>
---@return Histogram
function metrics.histogram(name, help, labels) end
