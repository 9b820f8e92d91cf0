// Two players in two windows of the demo, and the dashboard beside them. Arguments: the supervisor's address, the cluster's
// file, and a folder for pictures if they are wanted.
import { execFileSync } from "node:child_process";
import { mkdirSync } from "node:fs";
import { Browser } from "./browser.mjs";

const [base, config, shots] = process.argv.slice(2);
const at = (id) => `document.getElementById('${id}')`;
let failures = 0;

async function test(sentence, body) {
  try {
    const found = await body();
    if (found === false) throw new Error("it is not so");
    console.log(`ok ${sentence}`);
  } catch (err) {
    failures++;
    console.log(`not ok ${sentence}: ${err.message}`);
  }
}

async function enter(browser, name) {
  const page = await browser.open(`${base}/demo/?name=${name}`);
  await page.wait(`!${at("me")}.hidden`);
  return page;
}

const say = (page, text) => page.run(`${at("words")}.value = ${JSON.stringify(text)}; ${at("say")}.requestSubmit()`);
const hears = (page, text) => page.wait(`${at("lines")}.innerText.includes(${JSON.stringify(text)})`);
const place = (page, name) =>
  page.run(`(() => { for (const e of window.loquat.world.entities.values()) if (e.name === '${name}') return [e.x, e.y]; })()`);

const browser = await Browser.start();
try {
  const ann = await enter(browser, "ann");
  const bob = await enter(browser, "bob");
  await test("two players come in and see each other", async () => {
    await ann.wait("window.loquat.world.count('player') === 2");
    await bob.wait("window.loquat.world.count('player') === 2");
  });
  await test("one hears that the other came in", () => hears(ann, "bob came in"));
  await test("what one says the other hears", async () => {
    await say(ann, "hello 😀 <b>bob</b>");
    await hears(bob, "ann: hello 😀 <b>bob</b>");
  });
  await test("a step is seen by the other", async () => {
    const [x] = await place(bob, "ann");
    await ann.key("ArrowRight", true);
    await bob.wait(`(() => { for (const e of window.loquat.world.entities.values()) if (e.name === 'ann') return e.x > ${x} + 10; })()`);
    await ann.key("ArrowRight", false);
  });
  await test("both agree on the place", async () => {
    const near = async () => {
      const [x, y] = await place(ann, "ann"), [u, v] = await place(bob, "ann");
      return Math.hypot(x - u, y - v) < 1;
    };
    for (let i = 0; i < 1000 && !(await near()); i++) await new Promise((done) => setTimeout(done, 30));
    return near();
  });
  await test("a click walks there", async () => {
    const [x] = await place(ann, "ann");
    await ann.click(500, 400);
    await ann.wait(`window.loquat.world.self.x < ${x} - 5`);
  });
  await test("a potion costs 10 gold, once", async () => {
    await ann.run(`${at("buy")}.click()`);
    await ann.wait(`${at("gold")}.textContent === '990' && ${at("bag")}.textContent.includes('potion × 1')`);
  });
  await test("a quest is accepted, done and rewarded", async () => {
    const row = "[...document.querySelectorAll('.quest')].find((q) => q.innerText.includes('gatekeeper'))";
    for (const word of ["Accept", "Greet", "Hand in"]) {
      await ann.wait(`${row}?.querySelector('button')?.textContent === '${word}'`);
      await ann.run(`${row}.querySelector('button').click()`);
    }
    await ann.wait(`${row}.innerText.includes('✓')`);
    await ann.wait(`${at("gold")}.textContent === '995'`);
  });
  await test("another scene is another world", async () => {
    await bob.run(`${at("scene")}.value = '2'; ${at("scene")}.dispatchEvent(new Event('change'))`);
    await ann.wait("window.loquat.world.count('player') === 1");
    await bob.run(`${at("scene")}.value = '1'; ${at("scene")}.dispatchEvent(new Event('change'))`);
    await ann.wait("window.loquat.world.count('player') === 2");
  });
  await test("a lost connection comes back where it was", async () => {
    const before = await bob.run("window.loquat.connection().serial");
    await bob.run("window.loquat.connection().socket.close()");
    await bob.wait(`window.loquat.connection()?.serial > ${before} && window.loquat.world.count('player') === 2`);
    await say(bob, "back again");
    await hears(ann, "bob: back again");
  });
  await test("and so does one whose connector is drained", async () => {
    const before = await bob.run("window.loquat.connection().serial");
    const port = new URL(await bob.run("window.loquat.connection().socket.url")).port;
    const status = await (await fetch(`${base}/status`)).json();
    const leaves = status.instances.find((i) => i.client?.endsWith(`:${port}`)).id;
    execFileSync("build/bin/loquat", ["drain", leaves, "--config", config]);
    await bob.wait(`window.loquat.connection()?.serial > ${before} && window.loquat.world.count('player') === 2`);
    await say(bob, "here by another way");
    await hears(ann, "bob: here by another way");
  });
  if (shots) {
    mkdirSync(shots, { recursive: true });
    await ann.shot(`${shots}/demo.png`);
  }
  await test("on a telephone no panel covers another", async () => {
    await ann.resize(390, 844);
    await ann.wait(`${at("me")}.clientWidth > 350`);
    const covered = await ann.run(`(() => {
      const list = ["me", "quests", "chat", "link"].map((id) => [id, document.getElementById(id).getBoundingClientRect()]);
      const meet = (a, b) => a.left < b.right && b.left < a.right && a.top < b.bottom && b.top < a.bottom;
      return list.flatMap(([x, a], i) => list.slice(i + 1).filter(([, b]) => meet(a, b)).map(([y]) => x + " and " + y)).join();
    })()`);
    if (covered) throw new Error(covered);
    if (shots) await ann.shot(`${shots}/demo-narrow.png`);
    await ann.resize(1280, 800);
  });
  await test("the second of one name takes the place of the first", async () => {
    const again = await enter(browser, "bob");
    await bob.wait(`!${at("login")}.hidden && ${at("trouble")}.textContent.includes('disconnected')`);
    await again.wait("window.loquat.world.count('player') === 2");
  });

  const dashboard = await browser.open(`${base}/`);
  await test("the dashboard shows every process", () =>
    dashboard.wait(`${at("processes")}.innerText.includes('dbwriter-1') && ${at("phase")}.textContent === 'ready'`));
  await test("and what the database uses", () =>
    dashboard.wait("/mariadb\\s+ready\\s+\\S+\\s+\\d+\\s+\\d+ (s|min)\\s.*MiB\\s+[\\d.]+ %/.test(document.getElementById('processes').innerText)"));
  await test("and the methods that were called", () =>
    dashboard.wait(`${at("methods")}.innerText.includes('chat.chatHandler.send')`));
  await test("and how many play", () => dashboard.wait(`${at("sessions")}.textContent.startsWith('2')`));
  if (shots) {
    await dashboard.wait(`${at("methods")}.innerText.includes('move')`);
    await dashboard.shot(`${shots}/dashboard.png`);
    const dark = await browser.open(`${base}/`, { dark: true });
    await dark.wait(`${at("methods")}.innerText.includes('move')`);
    await dark.shot(`${shots}/dashboard-dark.png`);
  }
  const status = await (await fetch(`${base}/status`)).json();
  const dbwriter = status.instances.find((i) => i.id === "dbwriter-1").pid;
  process.kill(dbwriter, "SIGSTOP");
  try {
    await test("a process that stands still is told as silent, and its figures are not shown as if they were of now", () =>
      dashboard.wait(`/dbwriter-1\\s+silent for/.test(${at("processes")}.innerText) && ${at("lag")}.textContent.includes('dbwriter-1 is silent')
        && ${at("phase")}.textContent.startsWith('1 of ')`));
    if (shots) await dashboard.shot(`${shots}/dashboard-silent.png`);
  } finally {
    process.kill(dbwriter, "SIGCONT");
  }
  await test("and not any more when it goes on", () =>
    dashboard.wait(`/dbwriter-1\\s+ready/.test(${at("processes")}.innerText) && ${at("phase")}.textContent === 'ready'`));
  await test("no page has anything to complain of", () => {
    const all = [...browser.pages.values()].flatMap((p) => p.errors);
    if (all.length) throw new Error(all.join("; "));
  });
} catch (err) {
  failures++;
  console.log(`not ok the browser plays on: ${err.stack}`);
} finally {
  await browser.end();
}
process.exit(failures ? 1 : 0);
