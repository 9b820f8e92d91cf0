-- The quests of the reference game: kill, collect and talk.
return {
  { quest = 1, kind = "kill", title = "Slay three slimes", target = "slime", goal = 3, exp = 50, gold = 30 },
  { quest = 2, kind = "collect", title = "Bring five slime jellies", item = 5, goal = 5, exp = 80, gold = 60 },
  { quest = 3, kind = "talk", title = "Greet the gatekeeper", goal = 1, exp = 10, gold = 5 },
}
