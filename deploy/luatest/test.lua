-- What a service's tests (SERVICE/lua/tests/*.lua) see as `test`: docs/testing.md. What is below it in C comes as `c`.
local c = ...

local test, control = {}, {}
local cases, before = {}, {}
local TIMEOUT_MS = 5000

-- ---- cases ------------------------------------------------------------------

setmetatable(test, {
  __call = function(_, name, fn)
    if type(name) ~= "string" or type(fn) ~= "function" then error("test(name, fn) was expected", 2) end
    cases[#cases + 1] = { name = name, fn = fn }
  end,
})

-- Runs before each test of the file, in the test's own world.
function test.before(fn) before[#before + 1] = fn end

function control.count() return #cases end
function control.name(i) return cases[i].name end

-- What went wrong, and from where it was called in the service's files.
local function trace(why)
  if type(why) ~= "string" then return why end
  local text, first = why, why:match("^(.-:%d+):")
  local misuse = first and first:find("^deploy/luatest") -- of a function of this file: it is its caller's
  for place in c.traceback(why):gmatch("\n\t([^\n]-:%d+): in") do
    if place:find("^deploy/luatest") then
      goto continue
    elseif misuse then
      text, first, misuse = place .. text:sub(#first + 1), place, nil
    elseif place ~= first then
      text = text .. "\n  called from " .. place
    end
    ::continue::
  end
  return text
end

function control.run(i)
  local ok, why = xpcall(function()
    for _, fn in ipairs(before) do fn() end
    cases[i].fn()
  end, trace)
  c.finish(ok, why)
end

-- ---- what must hold ---------------------------------------------------------

local function is_name(key) return type(key) == "string" and key:find("^[%a_][%w_]*$") end

local function show(value, depth)
  if type(value) == "string" then return string.format("%q", value) end
  if type(value) ~= "table" then return tostring(value) end
  if value == json.null then return "null" end
  if depth > 4 then return "{…}" end
  local keys, parts = {}, {}
  for key in pairs(value) do keys[#keys + 1] = key end
  table.sort(keys, function(a, b)
    if type(a) == type(b) and (type(a) == "number" or type(a) == "string") then return a < b end
    return type(a) == "number" and type(b) ~= "number"
  end)
  for i, key in ipairs(keys) do
    if i > 20 then
      parts[i] = "…"
      break
    end
    local text = show(value[key], depth + 1)
    if key == i then parts[i] = text
    elseif is_name(key) then parts[i] = key .. " = " .. text
    else parts[i] = "[" .. show(key, depth + 1) .. "] = " .. text end
  end
  return "{" .. table.concat(parts, ", ") .. "}"
end

-- The first place at which two values differ, or nil: path, got, expected.
local function difference(got, expected, path)
  if type(got) ~= "table" or type(expected) ~= "table" then
    if got == expected or got ~= got and expected ~= expected then return nil end
    return path, got, expected
  end
  for key, value in pairs(expected) do
    local step = is_name(key) and "." .. key or "[" .. show(key, 0) .. "]"
    local where, a, b = difference(got[key], value, path .. step)
    if where then return where, a, b end
  end
  for key, value in pairs(got) do
    if expected[key] == nil then
      return path .. (is_name(key) and "." .. key or "[" .. show(key, 0) .. "]"), value, nil
    end
  end
end

-- Equal in all depths.
function test.equal(got, expected, what)
  local where, a, b = difference(got, expected, what or "")
  if not where then return end
  where = where == "" and "" or where:gsub("^%.", "") .. ": "
  error(where .. "expected " .. show(b, 0) .. ", got " .. show(a, 0), 2)
end

-- Each field of expected is so in got; got may have more.
function test.has(got, expected, what)
  if type(got) ~= "table" then error((what or "") .. "expected a table, got " .. show(got, 0), 2) end
  for key, value in pairs(expected) do
    local where, a, b = difference(got[key], value, (what and what .. "." or "") .. tostring(key))
    if where then
      error(where .. ": expected " .. show(b, 0) .. ", got " .. show(a, 0) .. " in " .. show(got, 0), 2)
    end
  end
end

function test.holds(value, what)
  if not value then error((what or "it") .. " does not hold: " .. show(value, 0), 2) end
  return value
end

-- fn raises, and its message holds the text.
function test.raises(text, fn, ...)
  local ok, why = pcall(fn, ...)
  if ok then error("expected an error: " .. text, 2) end
  if not tostring(why):find(text, 1, true) then
    error("expected an error: " .. text .. ", got: " .. tostring(why), 2)
  end
end

-- A client's answer is this refusal ("denied"), and its message holds the text.
function test.refused(answer, word, text)
  if answer.error ~= word then error("expected " .. word .. ", got " .. show(answer, 0), 2) end
  if text and not answer.message:find(text, 1, true) then
    error("expected a message with: " .. text .. ", got: " .. answer.message, 2)
  end
end

-- ---- calls under way --------------------------------------------------------

local Pending = {}
Pending.__index = Pending

-- Its answer. Yields until it is there.
function Pending:wait() return c.wait(self.handle) end
function Pending:done() return c.done(self.handle) end
-- Nobody waits for it any more.
function Pending:cancel() c.cancel(self.handle) end

local function pending(handle) return setmetatable({ handle = handle }, Pending) end

-- ---- sessions ---------------------------------------------------------------

local Session = {}
Session.__index = Session
local sids = 0

-- A player's connection: {uid, sid, connector, pushes, attributes, kicked}.
function test.session(uid, fields)
  sids = sids + 1
  local session = { uid = uid, sid = sids, connector = "connector-1", pushes = {}, attributes = {} }
  setmetatable(session, Session)
  for name, value in pairs(fields or {}) do session[name] = value end
  c.sessions[session.sid] = session
  return session
end

-- Sends a request and goes on.
function Session:send(route, message, timeout_ms)
  return pending(c.request(self.sid, self.connector, self.uid, route, message or json.decode("{}"),
    timeout_ms or TIMEOUT_MS))
end

-- The answer as a client sees it: {code = 200, …} or {code, error, message, effect}. Yields.
function Session:request(route, message, timeout_ms)
  return self:send(route, message, timeout_ms):wait()
end

-- The last push of this route, or nil.
function Session:pushed(route)
  for i = #self.pushes, 1, -1 do
    if self.pushes[i].route == route then return self.pushes[i].message end
  end
end

-- Its connection ends: it leaves the rooms it is in. Yields.
function Session:close()
  c.sessions[self.sid] = nil
  test.call("app.roomRemote.left", "", { sid = { self.sid } }, { from = self.connector })
  c.settle()
end

-- Forgets the pushes so far.
function Session:clear() self.pushes = {} end

-- ---- calls, other services --------------------------------------------------

-- A call of another service to this one's remote. options: from = "role-1", once, timeout_ms
function test.send(method, key, args, options)
  options = options or {}
  return pending(c.call(method, key, args or {}, options.from, options.once, options.timeout_ms or TIMEOUT_MS))
end

-- value, or nil, error, message, effect. Yields.
function test.call(method, key, args, options)
  return test.send(method, key, args, options):wait()
end

-- fn(args, call) answers app.rpc and app.send of this method from now on; a table is its answer.
function test.fake(method, fn)
  if type(fn) == "table" then
    local answer = fn
    fn = function() return answer end
  end
  c.fake(method, fn)
end

-- What this service has called so far: a list of {key, args, send, once}.
test.calls = c.calls

-- The request of init.lua's function http: status, body. Yields.
function test.http(method, path, body, signature)
  return c.wait(c.http(method, path, body, signature))
end

-- Another instance came or went; a record of this key was lost. Yields.
function test.peer(instance, up)
  c.hook("on_peer", instance, up)
  c.settle()
end

function test.lost(key)
  c.hook("on_lost", key, false)
  c.settle()
end

-- ---- the database -----------------------------------------------------------

-- Runs a statement on this test's tables; a list of rows.
test.rows = c.rows
-- What was written to the SQL log so far: a list of {keys, sql}.
test.records = c.records
-- Records are refused so from now on: "busy", "unavailable"; "unknown": taken and then lost; nil: they work.
test.sqllog = c.sqllog

-- Whether reads find the database.
function test.database(there) c.database(not there) end

-- fn(...) in a task whose changes land at its end, as app.task. Yields; its results.
function test.task(fn, ...)
  local ended = {}
  app.task(function(...)
    local results = table.pack(xpcall(fn, trace, ...))
    ended.results = results
    app.wake(ended)
    if not results[1] then error(results[2], 0) end
  end, ...)
  while not ended.results do app.wait(ended) end
  c.settle()
  if not ended.results[1] then error(ended.results[2], 0) end
  return table.unpack(ended.results, 2, ended.results.n)
end

-- ---- time, configuration, the log -------------------------------------------

-- Time goes on: what is due in between runs. Yields.
function test.turn(ms)
  c.allow(math.ceil(ms))
  clock.sleep(ms)
  c.settle()
end

-- The wall clock stands there now: "2026-03-29 04:59:58", UTC.
function test.at(text)
  local year, month, day, hour, min, sec = text:match("^(%d+)-(%d+)-(%d+) (%d+):(%d+):?(%d*)$")
  if not year then error('expected a time such as "2026-03-29 04:59:58"', 2) end
  c.at(os.time {
    year = tonumber(year), month = tonumber(month), day = tonumber(day), hour = tonumber(hour), min = tonumber(min),
    sec = tonumber(sec) or 0,
  })
end

local configured, real_config = {}, app.config

function app.config(path, otherwise)
  if configured[path] ~= nil then return configured[path] end
  return real_config(path, otherwise)
end

-- app.config(path) gives this from now on.
function test.config(path, value) configured[path] = value end

-- The lines logged so far, as one text.
test.log = c.log

return test, control
