-- chat: nothing to prepare; rooms are made when somebody comes.
require "members"

return {}
