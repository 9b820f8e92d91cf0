// The demo: logs in at the gate, enters at the connector it names, and plays. What the world is stands in world.js, how
// it looks in paint.js; here is who says what to whom.
import { connect } from "./pomelo.js";
import { World } from "./world.js";
import { Painter } from "./paint.js";

const byId = (id) => document.getElementById(id);
const world = new World();
const painter = new Painter(byId("world"), world);
const ITEMS = { 1: "potion", 2: "scroll", 3: "sword", 4: "shield", 5: "slime jelly" };
const MOVE_MS = 100; // the world's tick: more often would tell nobody more
let conn, me, resume, place, names = new Set(), target, lastAttack = 0, lastMove = 0, asked = false;

// ---- coming in ------------------------------------------------------------------------------------

// An address as the browser reaches it: a server that binds everywhere is where the page came from.
function reachable(host) {
  return host === "0.0.0.0" || host === "::" ? location.hostname : host;
}

async function gateAddress() {
  const status = await (await fetch("/status", { cache: "no-store" })).json();
  const gate = status.instances.find((i) => i.service === "gate" && i.state === "ready");
  if (!gate) throw new Error("no gate is ready");
  const colon = gate.client.lastIndexOf(":");
  return [reachable(gate.client.slice(0, colon).replace(/^\[|\]$/g, "")), Number(gate.client.slice(colon + 1))];
}

function must(answer) {
  if (answer.code !== 200) throw new Error(answer.message || answer.error || `code ${answer.code}`);
  return answer;
}

// A full cluster answers 202 and a place in the queue; the gate pushes onAdmit when it is our turn.
async function queryEntry(uid) {
  const gate = await connect(...(await gateAddress()));
  try {
    const answer = await gate.request("gate.gateHandler.queryEntry", { uid });
    if (answer.code !== 202) return must(answer);
    return await new Promise((resolve, reject) => {
      const show = (q) => trouble(`The world is full. You are number ${q.position} in the queue, about ${q.eta} s.`);
      show(answer);
      gate.on("onQueue", show);
      gate.on("onAdmit", resolve);
      gate.onClose = (why) => reject(new Error(why));
    });
  } finally {
    gate.close();
  }
}

// A session that was lost is taken up where it was, without asking the gate: no queue stands before those who come back.
async function takeUp() {
  if (!resume || !place) return undefined;
  try {
    conn = await connect(...place);
    listen();
    const answer = await conn.request("connector.entryHandler.resume", { resume });
    if (answer.code === 200) return answer;
    if (answer.error === "denied") resume = undefined; // used, or too old
  } catch {
    // that connector has gone
  }
  conn?.close();
  return undefined;
}

async function enterAnew(uid) {
  const entry = await queryEntry(uid);
  place = [reachable(entry.host), entry.port];
  conn = await connect(...place);
  listen();
  const answer = resume ? await conn.request("connector.entryHandler.resume", { resume }) : undefined;
  return answer?.code === 200 ? answer : must(await conn.request("connector.entryHandler.enter", { token: entry.token }));
}

async function enter(uid) {
  const answer = (await takeUp()) ?? (await enterAnew(uid));
  resume = answer.resume;
  names = new Set(answer.users);
  me = answer.role;
  await enterScene();
  showMe();
  refreshBag();
  refreshQuests();
}

async function enterScene(number) {
  const answer = must(await conn.request("scene.sceneHandler.enter", number ? { scene: number } : {}));
  world.enter(answer);
  byId("scene").value = answer.scene;
  target = undefined;
}

function listen() {
  conn.on("onSceneUpdate", (push) => world.update(push));
  conn.on("onChat", (push) => line(push.from, push.msg, push.channel));
  conn.on("onAdd", (push) => present(push.user, true));
  conn.on("onLeave", (push) => present(push.user, false));
  conn.onClose = (why, kicked) => lost(why, kicked);
}

// A connection that is lost is taken up again where it was; a kick is final, unless its reason says that resuming helps.
async function lost(why, kicked) {
  world.leave();
  if (kicked && !why.includes("resume")) {
    trouble(`You were disconnected: ${why}.`);
    show(false);
    resume = undefined;
    return;
  }
  if (why.includes("at another")) place = undefined;
  for (let wait = 300; ; wait = Math.min(wait * 2, 5000)) {
    toast("Connection lost: coming back …", 60000);
    await new Promise((done) => setTimeout(done, wait));
    try {
      await enter(me.uid);
      toast("Back again", 1500);
      return;
    } catch {
      conn?.close();
    }
  }
}

// ---- what the page shows -----------------------------------------------------------------------------

function trouble(text) {
  byId("trouble").textContent = text;
  byId("trouble").hidden = !text;
}

function toast(text, ms = 2500) {
  byId("toast").textContent = text;
  byId("toast").hidden = false;
  clearTimeout(toast.timer);
  toast.timer = setTimeout(() => (byId("toast").hidden = true), ms);
}

function show(playing) {
  byId("login").hidden = playing;
  for (const id of ["me", "chat", "quests", "link"]) byId(id).hidden = !playing;
}

function showMe() {
  byId("name").textContent = me.name;
  byId("level").textContent = `level ${me.level}`;
  byId("gold").textContent = me.gold.toLocaleString("en");
  byId("gems").textContent = me.gems;
  byId("exp").textContent = `${me.exp} exp`;
}

function line(from, text, channel) {
  const row = document.createElement("div"), who = document.createElement("b");
  if (from) {
    who.textContent = channel === "room" ? `${from}: ` : `${from} (${channel}): `;
    row.append(who, text);
    world.say(from, text);
  } else {
    row.className = "info";
    row.textContent = text;
  }
  byId("lines").append(row);
  while (byId("lines").childElementCount > 200) byId("lines").firstChild.remove();
  byId("lines").scrollTop = byId("lines").scrollHeight;
}

function present(user, here) {
  if (here === names.has(user)) return;
  if (here) names.add(user);
  else names.delete(user);
  line(null, here ? `${user} came in` : `${user} went away`);
}

async function refreshRole() {
  const answer = await conn.request("role.roleHandler.get");
  if (answer.code !== 200) return;
  if (answer.role.gold > me.gold) world.float(world.self, `+${answer.role.gold - me.gold} gold`, "#ffe08a");
  me = answer.role;
  showMe();
}

async function refreshBag() {
  const answer = await conn.request("role.bagHandler.list");
  if (answer.code !== 200) return;
  byId("bag").replaceChildren(
    ...answer.items.map(({ item, count }) => {
      const span = document.createElement("span");
      span.textContent = `${ITEMS[item] ?? `item ${item}`} × ${count}`;
      return span;
    }),
  );
}

// ---- quests --------------------------------------------------------------------------------------------

const QUEST_STEP = { open: ["accept", "Accept"], done: ["submit", "Hand in"] };

function questRow(q) {
  const row = document.createElement("div"), text = document.createElement("span");
  row.className = "quest";
  text.textContent = q.title + (q.state === "accepted" ? ` (${q.progress}/${q.goal})` : q.state === "rewarded" ? " ✓" : "");
  row.append(text);
  let step = QUEST_STEP[q.state];
  if (q.state === "accepted" && q.kind === "talk") step = ["progress", "Greet"];
  if (step) {
    const button = document.createElement("button");
    button.textContent = step[1];
    button.onclick = async () => {
      button.disabled = true;
      const answer = await conn.request(`role.questHandler.${step[0]}`, { quest: q.quest });
      if (answer.code !== 200) toast(answer.message);
      refreshQuests();
      refreshRole();
      refreshBag();
    };
    row.append(button);
  }
  return row;
}

async function refreshQuests() {
  const answer = await conn.request("role.questHandler.list");
  if (answer.code === 200) byId("questList").replaceChildren(...answer.quests.map(questRow));
}

// ---- playing ----------------------------------------------------------------------------------------------

const KEYS = {
  ArrowUp: [0, -1], ArrowDown: [0, 1], ArrowLeft: [-1, 0], ArrowRight: [1, 0],
  w: [0, -1], s: [0, 1], a: [-1, 0], d: [1, 0],
};
const pressed = new Set();

function steer() {
  let x = 0, y = 0;
  for (const key of pressed) {
    x += KEYS[key][0];
    y += KEYS[key][1];
  }
  const length = Math.hypot(x, y);
  if (length) {
    target = undefined;
    world.goal = undefined;
    return [x / length, y / length];
  }
  return world.towardsGoal();
}

// The server decides how far one comes: its answer corrects us, unless it is only the way between the two.
async function tellMove(now) {
  if (asked || now - lastMove < MOVE_MS || !world.selfMoved()) return;
  asked = true;
  lastMove = now;
  try {
    const answer = await conn.request("scene.sceneHandler.move", world.ownPlace());
    if (answer.code === 200) world.corrected(answer);
    else if (answer.error === "not_found") await enterScene();
  } catch {
    // the connection is lost: that is told where it ends
  } finally {
    asked = false;
  }
}

async function fight(now) {
  const prey = target && world.entities.get(target);
  if (!prey || prey.kind !== "monster") {
    target = undefined;
    return;
  }
  if (!world.inRange(prey)) {
    world.goal = { x: prey.x, y: prey.y, near: world.range * 0.8 };
    return;
  }
  world.goal = undefined;
  if (now - lastAttack < world.cooldown + 40) return;
  lastAttack = now;
  const answer = await conn.request("scene.sceneHandler.attack", { target: prey.id }).catch(() => ({}));
  if (answer.code !== 200) return;
  world.struck(prey, answer.damage);
  if (!answer.dead) return;
  target = undefined;
  setTimeout(() => {
    refreshRole();
    refreshBag();
    refreshQuests();
  }, 400);
}

let before = performance.now(), shownAt = 0;
function frame(now) {
  const seconds = Math.min(0.1, (now - before) / 1000);
  before = now;
  if (world.self) {
    world.step(seconds, steer());
    tellMove(now);
    fight(now);
    if (now - shownAt > 250) showLink(now);
  }
  painter.paint(now, target);
  requestAnimationFrame(frame);
}

const many = (n, what) => `${n} ${what}${n === 1 ? "" : "s"}`;

function showLink(now) {
  shownAt = now;
  byId("link").textContent =
    `${conn.roundTrip.toFixed(1)} ms · ${many(world.count("player"), "player")}, ${many(world.count("monster"), "slime")} in view`;
  byId("hp").style.width = `${(100 * world.self.hp) / world.self.hp_max}%`;
  byId("hpText").textContent = world.self.hp ? `${world.self.hp} / ${world.self.hp_max}` : "you are down; a moment …";
}

// ---- hands ----------------------------------------------------------------------------------------------------

byId("world").addEventListener("pointerdown", (event) => {
  if (!world.self) return;
  document.activeElement?.blur();
  const at = painter.toWorld(event.clientX, event.clientY), prey = world.monsterAt(at);
  target = prey?.id;
  world.goal = prey ? undefined : { ...at, near: 0 };
});

addEventListener("keydown", (event) => {
  const typing = /^(INPUT|SELECT)$/.test(document.activeElement?.tagName);
  if (event.key === "Enter" && world.self && !typing) byId("words").focus();
  else if (event.key === "Escape") document.activeElement?.blur();
  else if (KEYS[event.key] && !typing) {
    pressed.add(event.key);
    event.preventDefault();
  }
});
addEventListener("keyup", (event) => pressed.delete(event.key));
addEventListener("blur", () => pressed.clear());

byId("say").addEventListener("submit", async (event) => {
  event.preventDefault();
  const words = byId("words"), content = words.value.trim();
  words.value = "";
  words.blur();
  if (!content) return;
  const answer = await conn.request("chat.chatHandler.send", { content, target: "*", channel: byId("channel").value });
  if (answer.code !== 200) toast(answer.message);
});

// The order is ours: should the answer be lost, asking again with it charges nothing twice.
byId("buy").addEventListener("click", async () => {
  const order = crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}`;
  let answer;
  for (let attempt = 0; attempt < 3; attempt++) {
    answer = await conn.request("role.shopHandler.buy", { item: 1, count: 1, order }).catch(() => undefined);
    if (answer && answer.effect !== "unknown") break;
  }
  if (answer?.code !== 200) {
    toast(answer?.message ?? "no answer");
    return;
  }
  me.gold = answer.gold;
  showMe();
  refreshBag();
  refreshQuests();
});

byId("scene").addEventListener("change", async () => {
  byId("scene").blur();
  await enterScene(Number(byId("scene").value)).catch((err) => toast(err.message));
});

byId("login").addEventListener("submit", async (event) => {
  event.preventDefault();
  trouble("");
  try {
    await enter(byId("who").value.trim());
    show(true);
    line(null, "Welcome. Arrow keys walk, click a slime to fight it, Enter to talk.");
    if (names.size > 1) line(null, `Here: ${[...names].filter((n) => n !== me.name).slice(0, 10).join(", ")}`);
  } catch (err) {
    conn?.close();
    trouble(err.message);
  }
});

// For whoever looks from the browser's console.
window.loquat = { world, connection: () => conn };

const wanted = new URLSearchParams(location.search).get("name");
byId("quests").open = innerWidth >= 720;
byId("who").value = wanted ?? `guest-${1000 + Math.floor(Math.random() * 9000)}`;
if (wanted) byId("login").requestSubmit();
requestAnimationFrame(frame);
