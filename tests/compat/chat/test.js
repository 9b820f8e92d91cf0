'use strict';
// pomelo's chat example, as its web client does it, with the unmodified client package.
//
// usage: node test.js [GATE_PORT]     without a port it starts a cluster of its own
const assert = require('assert');
const client = require('./client');
const cluster = require('./cluster');

let gate;

// What comes out of a client is made in its own window, with that window's prototypes.
const same = (got, expected) => assert.deepStrictEqual(JSON.parse(JSON.stringify(got)), expected);

// What the example's queryEntry() does.
const queryEntry = async (uid) => {
  const player = client.open();
  await player.connect(gate.host, gate.port);
  const way = await player.request('gate.gateHandler.queryEntry', { uid });
  player.close();
  assert.strictEqual(way.code, 200, JSON.stringify(way));
  return way;
};

// What its login button does.
const login = async (username, rid) => {
  const way = await queryEntry(username);
  const player = client.open();
  await player.connect(way.host, way.port);
  player.answer = await player.request('connector.entryHandler.enter', { username, rid });
  return player;
};

const say = (player, from, target, content, rid) =>
  player.request('chat.chatHandler.send', { rid, content, from, target });

const tests = {
  async a_guest_enters_and_sees_who_is_there() {
    const alice = await login('alice', 'r1');
    assert.strictEqual(alice.answer.code, 200, JSON.stringify(alice.answer));
    same(alice.answer.users, ['alice']);
    const bob = await login('bob', 'r1');
    same(bob.answer.users.slice().sort(), ['alice', 'bob']);
    assert.strictEqual((await alice.push('onAdd')).user, 'bob');
    bob.close();
    assert.strictEqual((await alice.push('onLeave')).user, 'bob');
    alice.close();
  },

  async a_message_to_all_reaches_the_room_and_its_sender() {
    const carol = await login('carol', 'r2');
    const dave = await login('dave', 'r2');
    const other = await login('other', 'r3');
    assert.strictEqual((await say(carol, 'carol', '*', 'hello all', 'r2')).code, 200);
    for (const player of [carol, dave]) {
      const chat = await player.push('onChat');
      same([chat.msg, chat.from, chat.target], ['hello all', 'carol', '*']);
    }
    assert.strictEqual((await say(other, 'other', '*', 'over here', 'r3')).code, 200);
    assert.strictEqual((await other.push('onChat')).msg, 'over here');
    assert.ok(!other.pushed.some((p) => p.route === 'onChat'));
    for (const player of [carol, dave, other]) player.close();
  },

  async a_message_to_one_reaches_that_one_only() {
    const erin = await login('erin', 'r4');
    const frank = await login('frank', 'r4');
    const gina = await login('gina', 'r4');
    assert.strictEqual((await say(erin, 'erin', 'frank', 'psst', 'r4')).code, 200);
    const chat = await frank.push('onChat');
    same([chat.msg, chat.from, chat.target], ['psst', 'erin', 'frank']);
    assert.strictEqual((await say(gina, 'gina', '*', 'anybody?', 'r4')).code, 200);
    assert.strictEqual((await gina.push('onChat')).msg, 'anybody?');
    assert.strictEqual((await erin.push('onChat')).msg, 'anybody?');
    for (const player of [erin, frank, gina]) player.close();
  },

  async emoji_and_chinese_survive_the_clients_encoding() {
    const hugo = await login('hugo', 'r5');
    const text = '你好 😀 Grüße';
    assert.strictEqual((await say(hugo, 'hugo', '*', text, 'r5')).code, 200);
    assert.strictEqual((await hugo.push('onChat')).msg, text);
    hugo.close();
  },

  async a_second_login_of_a_living_name_is_an_error() {
    const ida = await login('ida', 'r6');
    const again = await login('ida', 'r6');
    assert.strictEqual(again.answer.code, 500);
    assert.strictEqual(again.answer.error, true);
    again.close();
    ida.close();
    // once the first has closed, the name is free at once
    const anew = await login('ida', 'r6');
    assert.strictEqual(anew.answer.code, 200, JSON.stringify(anew.answer));
    anew.close();
  },

  async an_error_is_an_answer_and_the_connection_stays() {
    const jo = await login('jo', 'r7');
    const answer = await jo.request('chat.chatHandler.fly', {});
    assert.strictEqual(answer.code, 404, JSON.stringify(answer));
    assert.strictEqual(answer.error, 'not_found');
    same(await jo.request('connector.entryHandler.echo', { a: [], b: null }), { a: [], b: null });
    jo.close();
  },
};

const main = async () => {
  const own = process.argv[2] ? null : await cluster.start();
  let failed = 0;
  gate = own || { host: '127.0.0.1', port: Number(process.argv[2]) };
  for (const [name, test] of Object.entries(tests)) {
    try {
      await test();
      console.log(`ok ${name}`);
    } catch (error) {
      failed++;
      console.log(`not ok ${name}`);
      console.log(String(error.stack || error).replace(/^/gm, '  '));
    }
  }
  if (own) {
    if (failed) console.log(own.said().slice(-5000));
    await own.stop();
  }
  process.exit(failed ? 1 : 0);
};

main().catch((error) => {
  console.log('not ok the_cluster_starts');
  console.log(String(error.stack || error));
  process.exit(1);
});
