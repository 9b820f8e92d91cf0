'use strict';
// A cluster of its own: deploy/cluster.lua on free ports, with its data in a temporary folder.
const { spawn } = require('child_process');
const fs = require('fs');
const net = require('net');
const os = require('os');
const path = require('path');

const root = path.resolve(__dirname, '../../..');
const READY_MS = 120000;

// In a row, and below those the kernel gives to outgoing connections and to who asks for any: those may be gone again
// before the cluster listens there.
// The first of a block of 40 is marked with our process id, as tests/system/lib.sh does: other tests keep away.
const isFree = (port) => new Promise((done) => {
  const server = net.createServer();
  server.once('error', () => done(false));
  server.listen(port, '127.0.0.1', () => server.close(() => done(true)));
});
const PORTS = 40;
const isLeft = (mark) => { // by a process that is gone; an empty one is being written
  try {
    const pid = Number(fs.readFileSync(mark, 'utf8'));
    return pid > 0 && !process.kill(pid, 0);
  } catch (error) {
    return error.code === 'ESRCH';
  }
};
const take = (mark) => {
  try {
    fs.writeFileSync(mark, `${process.pid}\n`, { flag: 'wx' });
    process.on('exit', () => fs.rmSync(mark, { force: true }));
    return true;
  } catch {
    if (isLeft(mark)) fs.rmSync(mark, { force: true });
    return false;
  }
};
const freePorts = async () => {
  for (let tries = 0; tries < 200; tries++) {
    const base = 12000 + Math.floor(Math.random() * 450) * PORTS;
    if (!take(`/tmp/loquat-ports-${base}`)) continue;
    const ports = Array.from({ length: PORTS }, (_, i) => base + i);
    if ((await Promise.all(ports.map(isFree))).every(Boolean)) return ports;
  }
  throw new Error(`no ${PORTS} free ports in a row`);
};

// The file may compute, so it is wrapped, not edited.
const config = (folder, ports, more) => `
local cluster = (function()
${fs.readFileSync(path.join(root, 'deploy/cluster.lua'), 'utf8')}
end)()
local ports, at = { ${ports.join(', ')} }, 0
local function fresh(old)
  if not old or old == 0 then return old end
  at = at + 1
  return ports[at]
end
for _, row in ipairs(cluster.instances) do
  row.client, row.rpc, row.http = fresh(row.client), fresh(row.rpc), fresh(row.http)
end
cluster.paths.var = "${folder}/var"
cluster.supervisor.http = fresh(cluster.supervisor.http)
${more}
return cluster
`;

// more: Lua that changes the table cluster
exports.start = async (more = '') => {
  const folder = fs.mkdtempSync(path.join(os.tmpdir(), 'loquat-compat-'));
  const ports = await freePorts();
  // relative paths in it start above its folder
  const file = path.join(root, 'build', `compat-${process.pid}.lua`);
  fs.writeFileSync(file, config(folder, ports, more));
  const up = spawn(path.join(root, 'build/bin/loquat'), ['up', '--config', file], { cwd: root });
  const ended = new Promise((done) => up.on('close', done));
  process.on('exit', () => up.kill('SIGTERM')); // a client that throws in a timer ends this program at once
  let said = '';
  await new Promise((done, refuse) => {
    const timer = setTimeout(() => refuse(new Error(`not ready after ${READY_MS} ms:\n${said}`)), READY_MS);
    const hear = (chunk) => {
      said += chunk;
      if (!said.includes('loquat: ready')) return;
      clearTimeout(timer);
      done();
    };
    up.stdout.on('data', hear);
    up.stderr.on('data', hear);
    ended.then((status) => refuse(new Error(`loquat up ended with ${status}:\n${said}`)));
  });
  return {
    // the first row of deploy/cluster.lua is gate-1, and its first port the clients'
    host: '127.0.0.1',
    port: ports[0],
    file,
    said: () => said,
    stop: async () => {
      up.kill('SIGTERM');
      await ended;
      fs.rmSync(folder, { recursive: true, force: true, maxRetries: 10 });
      fs.rmSync(file, { force: true });
    },
  };
};
