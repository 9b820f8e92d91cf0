-- What every Lua file of a service finds ready (docs/lua.md). Nothing is kept in globals: it lives in `state`.
std = "lua54"
max_line_length = 120
unused_args = false
read_globals = { "app", "cache", "clock", "db", "json", "log", "metrics", "random" }
globals = { state = { read_only = false, other_fields = true } }
exclude_files = { "build/**", "deploy/loquat/library.lua", "var/**", "**/node_modules/**" }
files["scene/lua"] = { read_globals = { "views" } }
files["deploy"] = { read_globals = { "env" } }
files["*/lua/tests"] = { read_globals = { "test", "views" } }
files["deploy/luatest"] = { globals = { "app" } }
files["tests/bench/peers"] = { read_globals = { "arg" }, std = "max" }
