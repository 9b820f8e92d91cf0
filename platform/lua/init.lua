-- platform: the platforms call us over HTTP.
local Pay = require "pay"

return { http = Pay.callback }
