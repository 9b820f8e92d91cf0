-- The numbers of the reference game.
return {
  width = 4000.0, height = 4000.0,
  view = 100.0,             -- how far one sees
  speed = 20.0,             -- units per second
  tolerance = 1.1,          -- clocks and networks jitter
  counted_ms_max = 1000,    -- who stood still for long may not jump
  range = 40.0, cooldown_ms = 800, damage = { 8, 14 },
  hp = 100, respawn_ms = 3000,
  spacing = 60.0,           -- between spawn points
  tick_ms = 100,
  updates_per_tick = 500,   -- views sent in one tick; in a larger crowd each waits its turn
  save_ms = 30000,          -- a player's place is written so often
  slime = {
    name = "slime", hp = 40, damage = { 3, 7 }, speed = 8.0, sight = 70.0, range = 15.0, think_ms = 500,
    attack_ms = 1500, back_ms = 5000, drop_ms = 8000, exp = 10, gold = 3, item = 5, drop_chance = 0.5,
  },
}
