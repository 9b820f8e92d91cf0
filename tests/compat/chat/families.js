'use strict';
// What every client must find, one after the other for each kind, all kinds side by side.
//
// usage: node families.js
const assert = require('assert');
const { execFileSync } = require('child_process');
const path = require('path');
const cluster = require('./cluster');
const kinds = require('./kinds');

const CLASSIC = { serializer: 'pomelo-protobuf' };
let own;

// What comes out of a client is made in its own window, with that window's prototypes.
const same = (got, expected) => assert.deepStrictEqual(JSON.parse(JSON.stringify(got)), expected);

const way = async (kind, uid) => {
  const player = await kind.open({});
  await player.connect(own.host, own.port);
  const answer = await player.request('gate.gateHandler.queryEntry', { uid });
  assert.strictEqual(answer.code, 200, JSON.stringify(answer));
  return { player, answer };
};

const enter = async (kind, uid, { user, token, reconnect } = {}) => {
  const { player: asked, answer } = await way(kind, uid);
  await asked.close();
  const player = await kind.open({ protobuf: !!user });
  await player.connect(answer.host, answer.port, user, reconnect);
  const entered = await player.request('connector.entryHandler.enter',
    token ? { token: answer.token } : { username: uid, rid: `room-${kind.name}` });
  assert.strictEqual(entered.code, 200, JSON.stringify(entered));
  return Object.assign(Object.create(null), { player, entered, answer });
};

const say = (kind, content, target = '*') => ({ content, target, rid: `room-${kind.name}`, from: 'x' });

const tests = {
  async a_handshake_without_dictionary_is_served(kind) {
    const { player } = await way(kind, `plain-${kind.name}`);
    const counted = await player.counted();
    assert.strictEqual(counted.out.codes, 0);
    assert.strictEqual(counted.out.json, counted.out.data);
    await player.close();
  },

  async the_dictionary_serves_both_ways(kind) {
    const { player } = await enter(kind, `dict-${kind.name}`);
    assert.strictEqual((await player.request('chat.chatHandler.send', say(kind, 'by code'))).code, 200);
    assert.strictEqual((await player.event('onChat')).msg, 'by code');
    const counted = await player.counted();
    if (kind.codes) {
      assert.strictEqual(counted.out.codes, counted.out.data, JSON.stringify(counted));
      assert.ok(counted.in.codes > 0, JSON.stringify(counted)); // the push; answers have no route
    }
    await player.close();
  },

  async protobuf_serves_both_ways(kind) {
    const { player, entered } = await enter(kind, `proto-${kind.name}`, { user: CLASSIC });
    same(entered.users, [`proto-${kind.name}`]);
    assert.ok(entered.role.id > 0 && entered.role.gold === 1000, JSON.stringify(entered.role));
    const text = '你好 😀 Grüße';
    assert.strictEqual((await player.request('chat.chatHandler.send', say(kind, text))).code, 200);
    const chat = await player.event('onChat');
    same([chat.msg, chat.from, chat.channel], [text, `proto-${kind.name}`, 'room']);
    assert.ok(Math.abs(chat.time - Date.now()) < 600000, String(chat.time)); // ms: 41 bits came whole
    const counted = await player.counted();
    assert.ok(counted.out.json === 0 && counted.in.json === 0, JSON.stringify(counted));
    const none = await player.request('role.shopHandler.buy', { item: 424242, count: 1, order: 'o' });
    same([none.code, none.error], [404, 'not_found']);
    // routes without a schema stay JSON
    same(await player.request('connector.entryHandler.echo', { a: [], b: null, c: '😀' }), { a: [], b: null, c: '😀' });
    await player.close();
  },

  async protos_that_a_client_keeps_serve_again(kind) {
    if (!kind.keeps) return;
    const { player, answer, entered } = await enter(kind, `kept-${kind.name}`, { user: CLASSIC });
    const asked = (await player.counted()).in.hello;
    await player.close();
    await player.connect(answer.host, answer.port);
    assert.ok((await player.counted()).in.hello < asked, 'the protos came again');
    const back = await player.request('connector.entryHandler.resume', { resume: entered.resume });
    same([back.code, back.resumed], [200, 1]);
    assert.strictEqual((await player.counted()).in.json, 0);
    await player.close();
  },

  async a_notify_has_its_effect_and_no_answer(kind) {
    const { player } = await enter(kind, `notify-${kind.name}`);
    const before = (await player.counted()).in.data;
    await player.notify('chat.chatHandler.send', say(kind, 'notified'));
    assert.strictEqual((await player.event('onChat')).msg, 'notified');
    await player.request('connector.entryHandler.echo', {});
    assert.strictEqual((await player.counted()).in.data - before, 2);
    await player.close();
  },

  async an_error_is_an_answer_and_the_connection_stays(kind) {
    const { player } = await enter(kind, `error-${kind.name}`);
    const answer = await player.request('no.suchHandler.route', {});
    same([answer.code, answer.error, answer.effect], [404, 'not_found', 'none']);
    same(await player.request('connector.entryHandler.echo', { x: 1 }), { x: 1 });
    await player.close();
  },

  async heartbeats_keep_an_idle_client(kind) {
    const { player } = await enter(kind, `beat-${kind.name}`);
    await player.beats(3); // two intervals without one would have been the end
    same(await player.request('connector.entryHandler.echo', { alive: 1 }), { alive: 1 });
    await player.close();
  },

  async a_silent_client_is_closed(kind) {
    const { player } = await enter(kind, `mute-${kind.name}`);
    await player.mute();
    await player.event('close');
  },

  async a_newer_login_kicks_with_a_reason(kind) {
    const first = await enter(kind, `kick-${kind.name}`, { token: true });
    const second = await enter(kind, `kick-${kind.name}`, { token: true });
    const kick = await first.player.event('onKick');
    if (!kind.noReason) assert.ok(typeof kick.reason === 'string' && kick.reason.length > 0, JSON.stringify(kick));
    await first.player.event('close');
    await second.player.close();
  },

  async a_lost_connection_is_resumed(kind) {
    const lost = await enter(kind, `back-${kind.name}`, { reconnect: true });
    await lost.player.cut();
    await lost.player.event('close');
    if (kind.name === 'nodejsclient') await lost.player.connect(lost.answer.host, lost.answer.port);
    else await lost.player.event('reconnect'); // by itself, after 5 s
    if (kind.name !== 'nodejsclient') {
      await lost.player.event('ready'); // of the first handshake
      await lost.player.event('ready');
    }
    const back = await lost.player.request('connector.entryHandler.resume', { resume: lost.entered.resume });
    same([back.code, back.resumed, back.uid], [200, true, `back-${kind.name}`]);
    await lost.player.close();
  },
};

// Stops the connectors as a machine that hangs, until the clients have noticed.
const silence = async (all) => {
  const status = JSON.parse(execFileSync(path.resolve(__dirname, '../../../build/bin/loquat'),
    ['status', '--json', '--config', own.file]));
  const pids = status.filter((row) => row.service === 'connector' && row.pid).map((row) => row.pid);
  const players = await Promise.all(all.map(async (kind) => (await enter(kind, `still-${kind.name}`)).player));
  await Promise.all(players.map((player) => player.beats(1)));
  for (const pid of pids) process.kill(pid, 'SIGSTOP');
  try {
    await Promise.all(players.map((player) => player.event('heartbeat timeout')));
  } finally {
    for (const pid of pids) process.kill(pid, 'SIGCONT');
  }
};

let failed = 0;
const check = async (name, fn) => {
  try {
    await fn();
    console.log(`ok ${name}`);
  } catch (error) {
    failed++;
    console.log(`not ok ${name}`);
    console.log(String(error.stack || error).replace(/^/gm, '  '));
  }
};

const main = async () => {
  own = await cluster.start('cluster.connector.heartbeat_s = 3');
  const all = await kinds.all();
  if (all.length < 3) console.log('skip jsclient_in_chromium chromium is not installed');
  await Promise.all(all.map(async (kind) => {
    for (const [name, test] of Object.entries(tests)) await check(`${kind.name}_${name}`, () => test(kind));
  }));
  await check('a_silent_server_is_noticed_by_each_client', () => silence(all));
  for (const kind of all) await kind.end();
  if (failed) console.log(own.said().slice(-5000));
  await own.stop();
  process.exit(failed ? 1 : 0);
};

main().catch((error) => {
  console.log('not ok the_cluster_starts');
  console.log(String(error.stack || error));
  process.exit(1);
});
