-- What the shop sells and what using an item does. Prices in gold.
return {
  [1] = { name = "potion", price = 10 },
  [2] = { name = "scroll", price = 50, exp = 20 },
  [3] = { name = "sword", price = 200 },
  [4] = { name = "shield", price = 150 },
  [5] = { name = "slime jelly", price = nil },   -- dropped by monsters, not sold
}
