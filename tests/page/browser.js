// node browser.js BIN_DIR [WORDS...]: the server's page in a real browser, headless, with the programs in BIN_DIR. With
// words, only the parts that have one of them in their names. With a folder in CHATPROTO_SHOTS it puts pictures there.
// Needs playwright-core, axe-core and Chromium ($CHROMIUM), tmux and nc.
'use strict';
const assert = require('node:assert/strict');
const { spawn, spawnSync } = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const axe = require('axe-core');
const playwright = require('playwright-core');

const bin = path.resolve(process.argv[2]);
const only = process.argv.slice(3);
const shots = process.env.CHATPROTO_SHOTS;
const patience = 1000 * (process.env.PATIENCE || 120);  // ms for what must happen; no result depends on the time
const scratch = fs.mkdtempSync(path.join(os.tmpdir(), 'chatproto-page-'));
const running = new Set();

const bytesOf = (text) => Buffer.from(text).toString('latin1');  // each as one character

async function until(what, condition) {
  const start = Date.now();
  for (;;) {
    const result = await condition();
    if (result) return result;
    assert.ok(Date.now() - start < patience, `waited in vain: ${what}`);
    await new Promise((done) => setTimeout(done, 20));
  }
}

// --- Servers, and clients that are no pages --------------------------------------------------------------------------

function start(program, ...flags) {
  const child = spawn(program === 'nc' ? program : path.join(bin, program), flags, { stdio: ['pipe', 'pipe', 'pipe'] });
  running.add(child);
  child.out = child.err = '';
  child.stdout.on('data', (data) => { child.out += data; });
  child.stderr.on('data', (data) => { child.err += data; });
  child.stdin.on('error', () => {});  // it may have ended
  child.ended = new Promise((done) => child.once('close', (code) => {
    running.delete(child);
    child.isOver = true;
    done(code);
  }));
  return child;
}
function freePort() {
  return new Promise((done) => {
    const listener = net.createServer().listen(0, '127.0.0.1', () => {
      const { port } = listener.address();
      listener.close(() => done(port));
    });
  });
}
const answers = (port) => new Promise((done) => {
  const socket = net.connect(port, '127.0.0.1', () => done(socket.destroy()));
  socket.on('error', () => done(null));
});

class Server {
  static async start(...flags) {
    for (let tries = 0; tries < 5; ++tries) {
      const server = new Server();
      server.port = await freePort();
      server.page = await freePort();
      server.securePage = await freePort();
      server.flags = [server.port, '--websocket', server.page, ...flags];
      server.flags = server.flags.map((flag) => (flag === '{}' ? server.securePage : flag));  // a port of its own
      if (await server.again()) return server;
      assert.match(server.child.err, /in use/, server.child.err);  // somebody else was faster
    }
    throw new Error('no free port');
  }
  async again() {
    this.child = start('server', ...this.flags);
    await until('the server listens', async () => this.child.isOver ||
      (await answers(this.port) && await answers(this.page)));
    return !this.child.isOver;
  }
  async stop() {
    this.child.kill('SIGTERM');
    assert.equal(await this.child.ended, 0, this.child.err);
  }
  get url() { return `http://127.0.0.1:${this.page}/`; }
  receiver(name, room) { return start('receiver', '127.0.0.1', this.port, name, room); }
  sender(name) { return start('sender', '127.0.0.1', this.port, name); }
}

// A connection over TCP that sends and gets bytes, each as one character.
class Wire {
  constructor(server, ...lines) {
    this.got = '';
    this.socket = net.connect(server.port, '127.0.0.1');
    this.socket.on('data', (data) => { this.got += data.toString('latin1'); });
    this.socket.on('error', () => {});
    this.say(...lines);
  }
  say(...lines) { this.socket.write(Buffer.from(lines.map((line) => `${line}\n`).join(''), 'latin1')); }
  async gets(text) { await until(`${JSON.stringify(text)} over TCP`, () => this.got.includes(text)); }
  static async listener(server, name, room) {
    const wire = new Wire(server, `rlogin:${name}`, `join:${room}`);
    await wire.gets('ok:joined\n');
    return wire;
  }
  static async speaker(server, name, room) {
    const wire = new Wire(server, `slogin:${name}`, `join:${room}`);
    await wire.gets('ok:joined\n');
    return wire;
  }
}

// Those who listen in a room, as a server with --presence tells.
async function listeners(server, room) {
  const wire = await Wire.speaker(server, 'asker', room);
  wire.say('who:', 'quit:');
  await until('an answer to who', () => /ok:\d.*\n/.test(wire.got));
  return wire.got.match(/ok:\d+ ?(.*)\n/)[1].split(' ').sort().join(' ');
}

// The terminal client, on a screen of tmux.
const screens = new Set();
class Screen {
  constructor(...args) {
    this.name = `page${process.pid}x${screens.size}`;
    screens.add(this);
    const environment = ['env', '-u', 'TMUX', 'LC_ALL=C.UTF-8', 'EDITRC=/dev/null', 'TERM=xterm-256color'];
    this.tmux('new-session', '-d', '-x', 80, '-y', 40, ...environment, path.join(bin, 'chat'), ...args);
  }
  tmux(...args) {
    const { status, stdout, stderr } = spawnSync('tmux', ['-L', this.name, '-f', '/dev/null', ...args.map(String)]);
    assert.equal(status, 0, String(stderr));
    return String(stdout);
  }
  end() { spawnSync('tmux', ['-L', this.name, 'kill-server']); }
  lines() { return this.tmux('capture-pane', '-p', '-J').split('\n').map((line) => line.trimEnd()); }
  async shows(words) {
    await until(`${words} on the terminal`, () => this.lines().some((line) => words.test(line)));
  }
  type(line) {
    this.tmux('send-keys', '-l', line);
    this.tmux('send-keys', 'Enter');
  }
}

// --- Pages -----------------------------------------------------------------------------------------------------------

let browser;
const complaints = [];    // of the browser's pages

async function open(server, { name, room, secret, before, isSecure, ...options } = {}) {
  const viewport = { width: 900, height: 700 };
  const page = await (await browser.newContext({ viewport, ignoreHTTPSErrors: !!isSecure, ...options })).newPage();
  page.setDefaultTimeout(patience);
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(error.stack));
  if (before) await before(page);
  await page.goto(isSecure ? `https://127.0.0.1:${server.securePage}/` : server.url);
  if (name !== undefined) await logIn(page, { name, room, secret });
  return page;
}
// Returns whether it is in. If the machine is too busy to connect in time, a person would try again, too.
async function logIn(page, { name, room, secret }) {
  await page.fill('#name', name);
  if (room !== undefined) await page.fill('#room', room);
  if (secret !== undefined) await page.fill('#secret', secret);
  for (;;) {
    await page.press('#name', 'Enter');
    await until('an answer to the login', async () =>
      await page.locator('#text').isVisible() || await page.textContent('#problem'));
    if (!/^Not connected/.test(await page.textContent('#problem'))) return page.locator('#text').isVisible();
  }
}
async function enter(server, options) {
  const page = await open(server, options);
  assert.ok(await page.locator('#text').isVisible(), await page.textContent('#problem'));
  return page;
}
const close = (...pages) => Promise.all(pages.map((page) => page.context().close()));

async function type(page, text) {
  await page.fill('#text', text);
  await page.press('#text', 'Enter');
}
// Waits until the log has a line of this kind with these words, and returns all lines of that kind.
async function sees(page, kind, words) {
  const lines = () => page.locator(`#log .${kind}`).evaluateAll((all) => all.map((line) => {
    const parts = [...line.childNodes].filter(({ tagName }) => tagName !== 'TIME');
    return parts.map(({ textContent }) => textContent).join('').trim();
  }));
  return until(`${kind}: ${words}, among ${JSON.stringify(await lines())}`, async () => {
    const found = await lines();
    return found.some((line) => (words instanceof RegExp ? words.test(line) : line === words)) && found;
  });
}
async function hints(page, words, where = '#hint') {
  await until(`the hint ${words}`, async () => words.test(await page.textContent(where)));
}
async function shoot(page, name) {
  if (shots) await page.screenshot({ path: path.join(shots, `${name}.png`) });
}
async function judge(page, name) {
  await page.evaluate(axe.source);
  const { violations, passes } = await page.evaluate(() => window.axe.run());
  assert.deepEqual(violations.map(({ id, nodes }) => [id, nodes.map(({ html }) => html)]), [], name);
  assert.ok(passes.some(({ id }) => id === 'color-contrast'), `${name}: no contrast was judged`);
  const wide = await page.evaluate(() => document.documentElement.scrollWidth > document.documentElement.clientWidth);
  assert.ok(!wide, `${name}: the page is wider than the screen`);
}

// --- The parts -------------------------------------------------------------------------------------------------------

// Chromium complains of each connection that fails, and where a server is restarted or the machine is busy some do.
const isExpected = (complaint) => /WebSocket connection to .* failed/.test(complaint);
async function part(name, body) {
  if (only.length && !only.some((words) => name.includes(words))) return;
  const begin = Date.now();
  const result = await body();
  assert.deepEqual(complaints.splice(0).filter((complaint) => !isExpected(complaint)), [], name);
  console.log(`ok: ${name}${result ? `: ${result}` : ''} (${((Date.now() - begin) / 1000).toFixed(1)} s)`);
}

async function main() {
  browser = await playwright.chromium.launch({
    executablePath: process.env.CHROMIUM || '/usr/bin/chromium',
    args: ['--disable-gpu', '--disable-background-networking', '--disable-component-update', '--disable-sync'],
  });
  const server = await Server.start('--history', '100', '--presence');
  const bare = await Server.start();

  await part('one request loads it all, and a strict policy forbids the rest', async () => {
    const requests = [];
    const page = await open(server, { before: (fresh) => fresh.on('response', (response) => requests.push(response)) });
    assert.deepEqual(requests.map((request) => request.url()), [server.url]);
    const size = (await requests[0].body()).length;
    assert.ok(size < 40000, `${size} bytes`);
    const policy = requests[0].headers()['content-security-policy'];
    assert.match(policy, /default-src 'none'/);
    assert.doesNotMatch(policy, /unsafe|\*/);
    await page.evaluate(() => {
      const script = document.createElement('script');
      script.textContent = 'window.broken = true';
      document.body.append(script);
    });
    assert.equal(await page.evaluate(() => window.broken), undefined);
    assert.match(complaints.splice(0).join(), /Content Security Policy/);  // and the browser's complaints are seen here
    await close(page);
    return `${size} bytes`;
  });

  await part('pages, sender, receiver and a bare connection talk to each other', async () => {
    const alice = await enter(server, { name: 'alice', room: 'cafe' });
    const bob = await enter(server, { name: 'bob', room: 'cafe' });
    const carol = server.receiver('carol', 'cafe');
    const wire = await Wire.listener(server, 'dan', 'cafe');
    await until('all are there', async () => await listeners(server, 'cafe') === 'alice bob carol dan');
    const greeting = 'hey everybody! ünïcode 漢字 😀  two blanks ';
    await type(alice, greeting);
    await sees(bob, 'text', `alice ${greeting.trim()}`);
    await until('receiver', () => carol.out === `alice: ${greeting}\n`);
    await wire.gets(bytesOf(`delivery:cafe:alice:${greeting}\n`));
    assert.equal((await sees(alice, 'own', /^you hey/)).length, 1);
    const sender = server.sender('eve');
    sender.stdin.end('/join cafe\nfrom a terminal\n');
    const speaker = await Wire.speaker(server, 'zoe', 'cafe');
    speaker.say('sendall:over TCP: yes', 'sendall:');
    for (const page of [alice, bob]) {
      await sees(page, 'text', 'eve from a terminal');
      await sees(page, 'text', 'zoe over TCP: yes');
      await sees(page, 'text', 'zoe');
    }
    await type(bob, 'and back');
    await sees(alice, 'text', 'bob and back');
    assert.equal((await sees(alice, 'own', /^you hey/)).length, 1);
    await shoot(alice, 'talk');
    const turn = (isAway) => alice.evaluate((value) => {
      Object.defineProperty(document, 'hidden', { value, configurable: true });
      document.dispatchEvent(new Event('visibilitychange'));
    }, isAway);
    await turn(true);
    await type(bob, 'are you there?');
    await until('the title counts', async () => await alice.title() === '(1) cafe');
    await turn(false);
    await until('the title counts no more', async () => await alice.title() === 'cafe');
    await close(alice, bob);
    carol.kill();
  });

  await part('what is hostile is shown as text, in its own line', async () => {
    const page = await enter(server, { name: 'alice', room: 'zoo', viewport: { width: 320, height: 600 } });
    const long = 'N'.repeat(235);
    const wire = await Wire.speaker(server, 'eve', 'zoo');
    const other = await Wire.speaker(server, long, 'zoo');
    wire.say('sendall:<img src=x onerror=alert(1)><script>alert(2)</script>&amp;<b>', 'sendall:\xff\xc3(\xe2\x82',
      bytesOf('sendall:a\u202eb\u2066c\u200f'), 'sendall:\x1b[2Jx\x07\0\ty\rz\x7f\x9b',
      bytesOf(`sendall:e${'\u0301'.repeat(100)}`), bytesOf('sendall:שלום عليكم'),
      `sendall:${'w'.repeat(230)}`);
    other.say('sendall:hi');
    await sees(page, 'text', 'eve <img src=x onerror=alert(1)><script>alert(2)</script>&amp;<b>');
    await sees(page, 'text', 'eve \ufffd\ufffd(\ufffd');
    await sees(page, 'text', 'eve a<202e>b<2066>c<200f>');
    await sees(page, 'text', 'eve ^[[2Jx^G^@\ty^Mz^?\ufffd');
    await sees(page, 'text', `eve ${'w'.repeat(230)}`);
    await sees(page, 'text', `${long} hi`);
    assert.equal(await page.locator('#log img, #log script').count(), 0);
    const tags = await page.locator('#log *').evaluateAll((all) => [...new Set(all.map((e) => e.tagName))].sort());
    assert.deepEqual(tags, ['B', 'BDI', 'DIV', 'I', 'TIME']);
    await judge(page, 'hostile texts');
    await shoot(page, 'hostile');
    await close(page);
    const named = await enter(server, { name: long, room: 'zoo', viewport: { width: 320, height: 600 } });
    await type(named, 'x');
    await sees(named, 'own', 'you x');
    await type(named, 'much too long');
    await hints(named, /^The text is too long: it has 13 bytes, and at most 5 fit\.$/);
    await judge(named, 'a long name');
    await shoot(named, 'long-name');
    await close(named);
  });

  await part('all bytes but the line feed pass, both ways', async () => {
    const bytes = String.fromCharCode(...Array.from({ length: 256 }, (_, i) => i)).replace('\n', '');
    const texts = [bytes.slice(0, 128), bytes.slice(128), '\r\r!', ':', ' '];
    const page = await open(server);
    const wire = await Wire.listener(server, 'bob', 'bytes');
    await page.evaluate(() => {
      window.speak = (lines) => new Promise((done) => {
        const socket = new WebSocket(location.href.replace(/^http/, 'ws'));
        socket.binaryType = 'arraybuffer';
        let got = '';
        const bytes = [...lines.map((line) => `${line}\n`).join('')].map((byte) => byte.charCodeAt(0));
        socket.onopen = () => socket.send(Uint8Array.from(bytes));
        socket.onmessage = ({ data }) => { got += String.fromCharCode(...new Uint8Array(data)); };
        socket.onclose = () => done(got);
        window.got = () => got;
      });
    });
    const replies = await page.evaluate((lines) => window.speak(lines),
      ['slogin:alice', 'join:bytes', ...texts.map((text) => `sendall:${text}`), 'quit:']);
    assert.equal(replies.match(/^ok:/gm).length, 3 + texts.length, replies);
    const wanted = texts.map((text) => `delivery:bytes:alice:${text}\n`).join('');
    await until('all bytes', () => wire.got.length >= 'ok:\nok:joined\n'.length + wanted.length);
    assert.equal(wire.got, `ok:\nok:joined\n${wanted}`);

    page.evaluate((lines) => void window.speak(lines), ['rlogin:bob', 'join:back']).catch(() => {});
    await until('it listens', () => page.evaluate(() => window.got && window.got().includes('ok:joined\n')));
    const speaker = await Wire.speaker(server, 'alice', 'back');
    speaker.say(...texts.map((text) => `sendall:${text}`));
    const back = texts.map((text) => `delivery:back:alice:${text}\n`).join('');
    await until('all bytes back', () => page.evaluate((size) => window.got().length >= size, back.length + 14));
    assert.equal(await page.evaluate(() => window.got()), `ok:\nok:joined\n${back}`);
    await close(page);
  });

  await part('a login that fails says why', async () => {
    const page = await open(bare);
    const fails = async (login, words, field) => {
      await logIn(page, { secret: '', ...login });
      await hints(page, words, '#problem');
      assert.ok(await page.locator(`#${field}`).evaluate((e) => e === document.activeElement), `${field} has no focus`);
      assert.ok(await page.locator('#chat').isHidden());
      if (field !== 'enter') assert.equal(await page.getAttribute(`#${field}`, 'aria-invalid'), 'true');
    };
    await fails({ name: '', room: 'cafe' }, /^A user needs a name\.$/, 'name');
    await fails({ name: 'no name', room: 'cafe' }, /^A user has a name of the letters/, 'name');
    await fails({ name: 'é', room: 'cafe' }, /^A user has a name of the letters/, 'name');
    await fails({ name: 'n'.repeat(248), room: 'cafe' }, /^The name is too long: 248 letters, and at most 247/, 'name');
    await fails({ name: 'bob', room: 'the garden' }, /^A room has a name of the letters/, 'room');
    await fails({ name: 'bob', room: 'cafe', secret: 's'.repeat(250) }, /^The secret is too long\.$/, 'secret');
    await fails({ name: 'bob', room: 'cafe', secret: 'x' },
      /^The server has refused the secret: unknown message\. If it takes none/, 'secret');
    await shoot(page, 'login-refused');
    await judge(page, 'a login that fails');
    assert.ok(await logIn(page, { name: 'n'.repeat(247), room: 'r'.repeat(249), secret: '' }));
    await type(page, 'x');
    await hints(page, /so long that no text fits/);
    await close(page);

    const made = spawnSync(path.join(bin, 'server'), ['--hash', 'bob'], { input: 'correct horse\n' });
    assert.equal(made.status, 0, String(made.stderr));
    fs.writeFileSync(path.join(scratch, 'passwords'), made.stdout);
    const strict = await Server.start('--passwords', path.join(scratch, 'passwords'));
    const other = await open(strict, { name: 'bob', room: 'cafe', secret: 'incorrect horse' });
    await hints(other, /^The server has refused the name: wrong name or secret$/, '#problem');
    await logIn(other, { name: 'bob', secret: '' });
    await hints(other, /^The server has refused the name: wrong name or secret$/, '#problem');
    await logIn(other, { name: 'bob', secret: 'correct horse' });
    await sees(other, 'note', 'You are in cafe.');
    await close(other);
    await strict.stop();
  });

  await part('over TLS', async () => {
    const made = spawnSync('sh', [path.join(__dirname, '../certificates.sh'), path.join(scratch, 'tls')]);
    assert.equal(made.status, 0, String(made.stderr));
    const file = (name) => path.join(scratch, 'tls', name);
    const secure = await Server.start('--cert', file('cert.pem'), '--key', file('key.pem'), '--secure-websocket', '{}');
    const alice = await enter(secure, { name: 'alice', room: 'cafe', isSecure: true });
    const bob = await enter(secure, { name: 'bob', room: 'cafe' });
    await type(alice, 'in secret');
    await sees(bob, 'text', 'alice in secret');
    await type(bob, 'in public');
    await sees(alice, 'text', 'bob in public');
    await close(alice, bob);
    await secure.stop();
  });

  await part('commands', async () => {
    const alice = await enter(server, { name: 'alice', room: 'one' });
    const bob = await enter(server, { name: 'bob', room: 'one' });
    await type(alice, '/who');
    await sees(alice, 'note', '2 listen in one: alice, bob');
    await type(alice, '/msg bob psst');
    await sees(alice, 'own', 'you to bob psst');
    await sees(bob, 'text', 'alice psst');
    await type(alice, '//join is a command');
    await sees(bob, 'text', 'alice /join is a command');
    await type(bob, '/join two');
    await sees(bob, 'note', 'You are in two.');
    assert.equal(await bob.textContent('#where'), 'two');
    assert.equal(new URL(bob.url()).hash, '#two');
    await type(alice, 'nobody hears');
    await sees(alice, 'own', 'you nobody hears');
    await type(bob, '/join one');
    await sees(bob, 'old', 'alice nobody hears');
    await type(bob, '/leave');
    await sees(bob, 'note', /^You have left one\./);
    await type(alice, 'nobody hears that either');
    await sees(alice, 'own', 'you nobody hears that either');
    await type(alice, '/who');
    await sees(alice, 'note', 'One listens in one: alice');
    await type(bob, 'in no room');
    await hints(bob, /^Join a room first: \/join ROOM$/);
    assert.equal(await bob.inputValue('#text'), 'in no room');
    await type(bob, '/join one');
    await sees(bob, 'old', 'alice nobody hears that either');
    await type(bob, '/history 2');
    await sees(bob, 'note', '2 texts of others from before you came:');
    await sees(bob, 'note', 'End of the history.');
    for (const [line, words] of [['/nonsense', /^There is no command \/nonsense\./], ['/', /^There is no command \/\./],
      ['/constructor', /^There is no command/], ['/join a b', /^A room has a name/], ['/join', /^A room needs a name/],
      ['/msg bob', /^\/msg needs a user and a text/], ['/msg b:b x', /^A name has only/],
      ['/leave now', /takes nothing more/], ['/history x', /takes a number/],
      ['fine\n/nonsense', /^Line 2: There is no command/]]) {
      await type(bob, line);
      await hints(bob, words);
      assert.equal(await bob.inputValue('#text'), line);
    }
    await type(bob, '/help');
    await sees(bob, 'note', /^What you can type:\n\/join ROOM/);
    await shoot(bob, 'commands');
    await type(bob, '/quit');
    await bob.locator('#name').waitFor();
    await logIn(bob, { name: 'bob', room: 'two' });
    await sees(bob, 'note', 'You are in two.');
    assert.equal(await bob.locator('#log .own, #log .old').count(), 0);
    await close(alice, bob);
  });

  await part('a server without history and presence, with one room', async () => {
    const small = await Server.start('--max-rooms', '1');
    const alice = await enter(small, { name: 'alice', room: 'one' });
    const bob = await enter(small, { name: 'bob', room: 'one' });
    await type(alice, '/who');
    await sees(alice, 'note', 'The server does not tell who is here: unknown message');
    await type(alice, '/history');
    await sees(alice, 'note', 'The server keeps no history: unknown message');
    await type(alice, '/join two\nmeant for the other room');
    await hints(alice, /^Not sent, because what came before it failed\.$/);
    assert.equal(await alice.inputValue('#text'), 'meant for the other room');
    await sees(alice, 'note', /^The server has refused that: the room is full/);
    await type(bob, 'still here?');
    await sees(alice, 'text', 'bob still here?');
    await type(alice, 'yes');
    assert.deepEqual(await sees(bob, 'text', 'alice yes'), ['alice yes']);
    await type(alice, '/leave');
    await sees(alice, 'note', /^You have left one/);
    await type(alice, '/join two');
    await until('it is refused again', async () =>
      (await sees(alice, 'note', /^The server has refused that/)).filter((line) => /refused/.test(line)).length === 2);
    await type(alice, '/join one');
    await until('alice is back', async () => await alice.textContent('#where') === 'one');
    await type(bob, 'welcome back');
    await sees(alice, 'text', 'bob welcome back');
    assert.equal(await alice.locator('#log .gap').count(), 0);
    await close(alice, bob);
    await small.stop();
  });

  await part('the longest text passes, and one byte more is refused and kept', async () => {
    const page = await enter(server, { name: 'alice', room: 'long' });
    const wire = await Wire.listener(server, 'bob', 'long');
    const most = 254 - 'delivery:long:alice:'.length;
    const text = 'é'.repeat(Math.floor(most / 2)) + 'x'.repeat(most % 2);
    await type(page, text);
    await sees(page, 'own', `you ${text}`);
    await wire.gets(bytesOf(`delivery:long:alice:${text}\n`));
    await page.fill('#text', `${text}y`);
    await hints(page, /^1 byte too long$/, '#left');
    await page.press('#text', 'Enter');
    await hints(page, new RegExp(`^The text is too long: it has ${most + 1} bytes, and at most ${most} fit`));
    assert.equal(await page.inputValue('#text'), `${text}y`);
    const user = 'u'.repeat(200);
    const listener = await Wire.listener(server, user, 'long');
    const least = 254 - `senduser:${user}:`.length;
    await type(page, `/msg ${user} ${'x'.repeat(least + 1)}`);
    await hints(page, new RegExp(`at most ${least} fit`));
    await type(page, `/msg ${user} ${'x'.repeat(least)}`);
    await listener.gets(`delivery:long:alice:${'x'.repeat(least)}\n`);
    await close(page);
  });

  await part('a thousand lines that are pasted are sent, in order', async () => {
    const page = await enter(server, { name: 'alice', room: 'paste' });
    const wire = await Wire.listener(server, 'bob', 'paste');
    const lines = Array.from({ length: 1000 }, (_, i) => `line ${i}`);
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.evaluate((text) => navigator.clipboard.writeText(text), lines.join('\n'));
    await page.press('#text', 'Control+V');
    assert.equal(await page.inputValue('#text'), lines.join('\n'));
    await page.press('#text', 'Enter');
    await wire.gets('line 999\n');
    assert.equal(wire.got, `ok:\nok:joined\n${lines.map((line) => `delivery:paste:alice:${line}\n`).join('')}`);
    assert.deepEqual(await sees(page, 'own', 'you line 999'), lines.map((line) => `you ${line}`));
    assert.equal(await page.inputValue('#text'), '');
    await close(page);
  });

  // Between the page and the server, in the next parts: { down } closes what is open and refuses what is new.
  function between(control) {
    const sockets = new Set();
    control.cut = () => {
      control.down = true;
      for (const socket of sockets) socket.close();
      sockets.clear();
    };
    return (page) => page.routeWebSocket(/.*/, (socket) => {
      if (control.down) return void socket.close();
      sockets.add(socket);
      const far = socket.connectToServer();
      socket.onMessage((data) => {
        const rest = control.toServer ? control.toServer(data, socket) : data;
        if (rest.length) far.send(rest);
      });
      far.onMessage((data) => (control.toPage ? control.toPage(data, socket) : socket.send(data)));
    });
  }

  await part('lines may come in pieces and in text frames', async () => {
    let isText = false;
    const toPage = (data, socket) => {
      const bytes = Buffer.from(data);
      for (const byte of bytes) socket.send(isText ? String.fromCharCode(byte) : Buffer.from([byte]));
      isText = !isText;
    };
    const wire = await Wire.speaker(server, 'bob', 'pieces');
    wire.say('sendall:before');
    const page = await enter(server, { name: 'alice', room: 'pieces', before: between({ toPage }) });
    await sees(page, 'old', 'bob before');
    wire.say('sendall:one', 'sendall:two', 'sendall:three');
    await sees(page, 'text', 'bob three');
    assert.deepEqual(await sees(page, 'text', 'bob one'), ['bob one', 'bob two', 'bob three']);
    await close(page);
  });

  await part('a text that is refused comes back, and one without an answer is told', async () => {
    const control = {};
    control.toServer = (data, socket) => {
      if (/sendall:no/.test(data)) return socket.send(Buffer.from('err:not \x1b[1mnow\n')), Buffer.alloc(0);
      if (/sendall:lost/.test(data)) return control.cut(), Buffer.alloc(0);
      return data;
    };
    const page = await enter(server, { name: 'alice', room: 'errors', before: between(control) });
    const wire = await Wire.listener(server, 'bob', 'errors');
    await type(page, 'no way');
    await hints(page, /^The server has refused that: not \^\[\[1mnow$/);
    assert.equal(await page.inputValue('#text'), 'no way');
    await type(page, 'fine');
    await wire.gets('delivery:errors:alice:fine\n');
    await type(page, 'lost');
    await sees(page, 'unsure', 'No answer, so this may have been said in errors or not: lost');
    await sees(page, 'gap', 'Connection lost: the server has closed the connection. Texts may be missing here.');
    await type(page, 'kept');
    await hints(page, /^Not connected\./);
    assert.equal(await page.inputValue('#text'), 'kept');
    await shoot(page, 'lost');
    await judge(page, 'a lost connection');
    control.down = false;
    await sees(page, 'note', /^You are in errors again/);
    await page.press('#text', 'Enter');
    await wire.gets('delivery:errors:alice:kept\n');
    assert.equal(wire.got.match(/kept/g).length, 1);
    await close(page);
  });

  await part('what was said while the connection was lost is shown, and nothing twice', async () => {
    const control = {};
    const wire = await Wire.speaker(server, 'bob', 'gap');
    wire.say('sendall:same', 'sendall:same', 'sendall:before');
    const page = await enter(server, { name: 'alice', room: 'gap', before: between(control) });
    await sees(page, 'old', 'bob before');
    wire.say('sendall:same', 'sendall:live');
    await sees(page, 'text', 'bob live');
    control.cut();
    await sees(page, 'gap', /Texts may be missing here/);
    wire.got = '';
    wire.say('sendall:meanwhile', 'sendall:same');
    await until('they are said', () => wire.got.match(/ok:/g)?.length === 2);
    control.down = false;
    await sees(page, 'note', 'You are in gap again. What others said meanwhile:');
    wire.say('sendall:after');
    await sees(page, 'text', 'bob after');
    assert.deepEqual(await sees(page, 'old', 'bob meanwhile'),
      ['bob same', 'bob same', 'bob before', 'bob meanwhile', 'bob same']);
    assert.deepEqual(await sees(page, 'text', 'bob after'), ['bob same', 'bob live', 'bob after']);
    await close(page);
  });

  await part('a connection that is dead without an end is noticed', async () => {
    const control = {};
    const page = await open(server, {
      name: 'alice', room: 'dead', before: (fresh) => fresh.clock.install().then(() => between(control)(fresh)),
    });
    await sees(page, 'note', 'You are in dead.');
    await page.clock.runFor(40000);  // when it asks whether the server is there
    control.toServer = () => '';
    for (let i = 0; i < 4 && !(await page.locator('#log .gap').count()); ++i) await page.clock.runFor(40000);
    await sees(page, 'gap', 'Connection lost: the server does not answer. Texts may be missing here.');
    control.toServer = null;
    await sees(page, 'note', 'You are in dead again.');
    await close(page);
  });

  await part('a server that sends something else, or too much, is left', async () => {
    for (const nonsense of ['nonsense\n', 'delivery:x\n', 'x'.repeat(300), 'ok:nobody asked\n']) {
      const control = {};
      const page = await enter(bare, { name: 'alice', room: 'odd', before: between(control) });
      control.toPage = (data, socket) => {
        control.toPage = null;
        socket.send(Buffer.from(data.includes('delivery') ? nonsense : data));
      };
      (await Wire.speaker(bare, 'bob', 'odd')).say('sendall:x');
      await sees(page, 'gap', /has sent something that is not a message/);
      await sees(page, 'note', 'You are in odd again.');
      await close(page);
    }
  });

  await part('the server is restarted: the pages come back by themselves, and show the gap', async () => {
    const alice = await enter(bare, { name: 'alice', room: 'cafe' });
    const bob = await enter(bare, { name: 'bob', room: 'cafe', colorScheme: 'dark' });
    await type(alice, 'before');
    await sees(bob, 'text', 'alice before');
    await bare.stop();
    for (const page of [alice, bob]) {
      await sees(page, 'gap', /^Connection lost: .*Texts may be missing here\.$/);
      assert.match(await page.textContent('#state'), /^Not connected/);
    }
    await shoot(bob, 'restart');
    assert.ok(await bare.again());
    for (const page of [alice, bob]) await sees(page, 'note', 'You are in cafe again.');
    await type(alice, 'after');
    assert.deepEqual(await sees(bob, 'text', 'alice after'), ['alice before', 'alice after']);
    assert.equal(await bob.textContent('#state'), 'Connected');
    assert.equal(await bob.locator('#log .gap').count(), 1);
    await close(alice, bob);
  });

  await part('everybody talks with everybody, and the server is restarted in the middle', async () => {
    const flags = ['--history', '200', '--history-file', path.join(scratch, 'history'), '--presence'];
    const host = await Server.start(...flags);
    const at = ['127.0.0.1', String(host.port)];
    const wide = { room: 'cafe', viewport: { width: 1200, height: 800 }, colorScheme: 'light' };
    const narrow = { room: 'cafe', viewport: { width: 320, height: 600 }, colorScheme: 'dark' };
    const alice = await enter(host, { name: 'alice', ...wide });
    const bob = await enter(host, { name: 'bob', ...narrow });
    const carol = new Screen(...at, 'carol', 'cafe');
    const dan = host.sender('dan');
    dan.stdin.write('/join cafe\n');
    const erin = host.receiver('erin', 'cafe');
    const netcat = (...lines) => {
      const child = start('nc', ...at);
      child.stdin.write(lines.map((line) => `${line}\n`).join(''));
      return child;
    };
    let frank = netcat('rlogin:frank', 'join:cafe');
    const grace = netcat('slogin:grace', 'join:cafe');
    await until('all are there', async () => await listeners(host, 'cafe') === 'alice bob carol erin frank');

    // Each of them speaks when all have heard the one before. A listener does not hear itself.
    const heard = (page) => page.locator('#log :is(.text, .old)').evaluateAll((all) =>
      all.map((line) => `${line.querySelector('b').textContent}: ${line.querySelector('bdi').textContent}`));
    const isHeard = async (text) => {
      const [name] = text.split(':');
      for (const [who, page] of [['alice', alice], ['bob', bob]])
        if (who !== name) await until(`${who} hears ${text}`, async () => (await heard(page)).includes(text));
      await carol.shows(new RegExp(`^\\d\\d:\\d\\d ${text}$`));
    };
    const speakers = {
      alice: (text) => type(alice, text), bob: (text) => type(bob, text), carol: (text) => carol.type(text),
      dan: (text) => dan.stdin.write(`${text}\n`), grace: (text) => grace.stdin.write(`sendall:${text}\n`),
    };
    const before = [];
    for (const [name, speak] of Object.entries(speakers)) {
      await speak(`this is ${name}`);
      before.push(`${name}: this is ${name}`);
      await isHeard(before.at(-1));
    }
    const all = before.map((text) => `${text}\n`).join('');
    await until('the receiver has heard all', () => erin.out === all);
    const delivered = before.map((text) => `delivery:cafe:${text.replace(': ', ':')}\n`).join('');
    await until('nc has heard all', () => frank.out === `ok:\nok:joined\n${delivered}`);
    for (const [name, page] of [['alice', alice], ['bob', bob]]) await shoot(page, `all-joined-${name}`);

    const strangers = {};
    for (const [name, { viewport, colorScheme }] of [['light', wide], ['dark', narrow]]) {
      strangers[name] = await open(host, { viewport, colorScheme });
      await strangers[name].fill('#name', 'ivan');
    }

    // Sender, receiver and nc end, as they are made to. The others say that something may be missing.
    await host.stop();
    for (const child of [dan, erin, frank, grace]) child.stdin.end();
    assert.equal(await erin.ended, 1);
    assert.match(erin.err, /the server has closed the connection/);
    assert.equal(await dan.ended, 1);
    assert.match(dan.err, /the server has closed the connection/);
    await Promise.all([frank.ended, grace.ended]);
    for (const [name, page] of [['alice', alice], ['bob', bob]]) {
      await sees(page, 'gap', /^Connection lost: .*Texts may be missing here\.$/);
      await shoot(page, `all-reconnecting-${name}`);
      await judge(page, `reconnecting, ${name}`);
    }
    for (const [name, page] of Object.entries(strangers)) {
      await page.press('#name', 'Enter');
      await hints(page, /^Not connected: nobody answers$/, '#problem');
      assert.equal(await page.locator('[aria-invalid=true]').count(), 0);  // no field is to blame
      await judge(page, `no server, ${name}`);
      await shoot(page, `all-refused-${name}`);
    }
    await carol.shows(/the server has closed the connection; trying again/);
    await carol.shows(/^not connected>$/);
    carol.type('typed meanwhile');

    // What is said at once is heard by all who come back, live or as history.
    assert.ok(await host.again());
    const heidi = await Wire.speaker(host, 'heidi', 'cafe');
    heidi.say('sendall:who is back?');
    await until('it is said', () => heidi.got.match(/ok:/g)?.length === 3);
    await until('all are back', async () => await listeners(host, 'cafe') === 'alice bob carol');
    await carol.shows(/connected again: what was said since \d\d:\d\d may be missing here \(try \/history\)/);
    await carol.shows(/^\d\d:\d\d carol: typed meanwhile$/);
    frank = netcat('rlogin:frank', 'join:cafe', 'history:200');
    await until('nc has it all', () => /typed meanwhile/.test(frank.out) && /who is back/.test(frank.out));
    const lines = frank.out.split('\n').slice(3, -1);  // after three replies
    const kept = lines.map((line) => line.slice('delivery:cafe:'.length).replace(':', ': '));
    assert.deepEqual(kept.slice(0, before.length), before);
    assert.equal(kept.length, before.length + 2);
    await type(alice, 'we are');
    await isHeard('alice: we are');
    heidi.say('sendall:good');
    await isHeard('heidi: good');
    kept.push('alice: we are', 'heidi: good');
    for (const [name, page] of [['alice', alice], ['bob', bob]]) {
      assert.deepEqual(await heard(page), kept.filter((text) => !text.startsWith(`${name}: `)), name);
      const marks = await page.locator('#log :is(.gap, .text, .old)').evaluateAll((found) =>
        found.map((line) => line.className));
      assert.equal(marks.indexOf('gap'), marks.lastIndexOf('gap'));
      assert.equal(marks.indexOf('gap'), before.length - 1);  // after what was said before, but for one's own text
      await shoot(page, `all-back-${name}`);
    }
    carol.type('/history 200');
    for (const text of before.filter((each) => !each.startsWith('carol')))
      await carol.shows(new RegExp(`^--:-- ${text}$`));
    await carol.shows(/^(\d\d:\d\d|--:--) heidi: who is back\?$/);
    if (shots) fs.writeFileSync(path.join(shots, 'all-back-carol.txt'), carol.lines().join('\n'));
    carol.end();
    frank.stdin.end();
    await close(alice, bob, ...Object.values(strangers));
    await host.stop();
    await frank.ended;
  });

  await part('many lines: the oldest go, who reads earlier ones stays there, and a button leads on', async () => {
    const page = await enter(server, { name: 'alice', room: 'many' });
    const wire = await Wire.speaker(server, 'bob', 'many');
    await page.evaluate(() => {
      window.times = [];
      let before = performance.now();
      const tick = (now) => {
        window.times.push(now - before);
        before = now;
        requestAnimationFrame(tick);
      };
      requestAnimationFrame(tick);
    });
    const line = (i) => `line ${i} ${'word '.repeat(i % 40)}`.trim();
    const begin = Date.now();
    for (let i = 0; i < 6000; i += 500) {  // more at once, and the server may give up a page on a busy machine
      const lines = Array.from({ length: 500 }, (_, j) => line(i + j));
      wire.say(...lines.map((each) => `sendall:${each}`));
      const isShown = (text) => {
        const newest = document.querySelector('#log > :last-child > .text:last-child');
        return newest?.textContent.includes(text);
      };
      await page.waitForFunction(isShown, lines[499], { polling: 'raf' });
    }
    const time = Date.now() - begin;
    const isSeen = (locator) => locator.evaluate((e) => {
      const [box, frame] = [e.getBoundingClientRect(), document.getElementById('log').getBoundingClientRect()];
      return box.bottom > frame.top && box.top < frame.bottom;
    });
    const newest = page.locator('#log .text').last();
    await until('the newest is seen', () => isSeen(newest));
    const kept = await page.locator('#log > * > *').count();
    assert.ok(kept > 4800 && kept <= 5000, `${kept} lines`);
    const frames = await page.evaluate(() => window.times.splice(0).sort((a, b) => a - b));
    await shoot(page, 'many');

    await page.press('#text', 'PageUp');
    await page.press('#text', 'PageUp');
    await until('it has scrolled', async () => !(await isSeen(newest)));
    wire.say('sendall:unseen', 'sendall:unseen too');
    await page.getByText('2 new').waitFor();
    assert.ok(!(await isSeen(page.locator('#log .text').last())));
    await shoot(page, 'new');
    await page.press('#text', 'Escape');
    await page.locator('#new').waitFor({ state: 'hidden' });
    await until('the newest is seen', () => isSeen(page.locator('#log .text').last()));
    await page.evaluate(() => window.times.splice(0));
    for (let i = 0; i < 40; ++i) await page.press('#text', i < 20 ? 'PageUp' : 'PageDown');
    const scrolling = await page.evaluate(() => window.times.splice(0).sort((a, b) => a - b));
    await close(page);
    const rank = (all, share) => all[Math.min(all.length - 1, Math.floor(all.length * share))].toFixed(0);
    const ranks = (all) => `median ${rank(all, 0.5)}, 99 % ${rank(all, 0.99)}, most ${rank(all, 1)} ms`;
    return `6000 texts in ${time} ms; frames meanwhile: ${ranks(frames)}; frames while it scrolls: ${ranks(scrolling)}`;
  });

  await part('the first text is there soon', async () => {
    const wire = await Wire.speaker(server, 'bob', 'soon');
    wire.say('sendall:first');
    const times = [];
    for (let i = 0; i < 5; ++i) {
      const page = await open(server);
      await page.fill('#name', 'alice');
      await page.fill('#room', 'soon');
      times.push(await page.evaluate(() => new Promise((done) => {
        const begin = performance.now();
        const look = () => {
          if (document.querySelector('#log .old')) done(performance.now() - begin);
          if (document.getElementById('problem').textContent) done(NaN);  // a busy machine
        };
        new MutationObserver(look).observe(document.body, { childList: true, subtree: true });
        document.getElementById('enter').click();
      })));
      await close(page);
    }
    return `after ${times.map((time) => time.toFixed(0)).join(', ')} ms`;
  });

  await part('by keyboard alone', async () => {
    const page = await open(server);
    const focus = () => page.evaluate(() => {
      const e = document.activeElement;
      const style = getComputedStyle(e);
      const isSeen = style.outlineStyle !== 'none' && style.outlineWidth !== '0px';
      return `${e.id || e.textContent}${isSeen ? '' : ' (unseen)'}`;
    });
    const tabs = async (...wanted) => {
      for (const one of wanted) {
        await page.keyboard.press('Tab');
        assert.equal(await focus(), one);
      }
    };
    assert.equal(await focus(), 'name');
    await page.keyboard.type('alice');
    await tabs('room');
    await page.keyboard.type('keys');
    await tabs('secret', 'enter');
    await page.keyboard.press('Enter');
    await page.locator('#text').waitFor();
    assert.equal(await focus(), 'text');
    assert.equal(await page.textContent('#where'), 'keys');  // a field that is entered by Tab is selected
    await page.keyboard.type('first');
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.type('second');
    await page.keyboard.press('Enter');
    await sees(page, 'own', 'you second');
    await page.keyboard.press('ArrowUp');
    assert.equal(await page.inputValue('#text'), 'first\nsecond');
    await page.keyboard.press('ArrowDown');
    assert.equal(await page.inputValue('#text'), '');
    await tabs('Send');
    await page.keyboard.press('Shift+Tab');
    await page.keyboard.press('Shift+Tab');
    assert.equal(await focus(), 'log');
    await page.keyboard.press('Escape');
    assert.equal(await focus(), 'text');
    for (const one of ['log', 'Quit', 'Help', 'Who']) {
      await page.keyboard.press('Shift+Tab');
      assert.equal(await focus(), one);
    }
    await page.keyboard.press('Enter');
    await sees(page, 'note', 'One listens in keys: alice');
    assert.equal(await focus(), 'text');
    await page.keyboard.type('/quit');
    await page.keyboard.press('Enter');
    await page.locator('#name').waitFor();
    assert.equal(await focus(), 'enter');
    await close(page);
  });

  await part('axe finds nothing: light, dark, narrow', async () => {
    const wire = await Wire.speaker(server, 'eve', 'axe');
    for (const colorScheme of ['light', 'dark']) {
      for (const viewport of [{ width: 1280, height: 800 }, { width: 320, height: 600 }]) {
        const name = `${colorScheme}-${viewport.width}`;
        wire.say('sendall:earlier');
        const page = await open(server, { colorScheme, viewport });
        await judge(page, `login, ${name}`);
        await shoot(page, `login-${name}`);
        await logIn(page, { name: 'alice', room: 'axe' });
        await sees(page, 'old', 'eve earlier');
        for (const speaker of ['bob', 'carol', 'dan', 'frank', 'grace', 'heidi', 'ivan', 'judy', 'mallory', 'niaj',
          'olivia', 'peggy', 'rupert', 'sybil', 'trent', 'victor', 'walter'])
          (await Wire.speaker(server, speaker, 'axe')).say(`sendall:hello, this is ${speaker}\x07`);
        await type(page, 'hello, this is me');
        await type(page, '/who');
        await type(page, '/nonsense');
        await sees(page, 'text', /walter/);
        await sees(page, 'note', /^One listens/);
        await judge(page, `chat, ${name}`);
        await shoot(page, `chat-${name}`);
        const colours = await page.locator('#log b').evaluateAll((all) => all.map((e) => getComputedStyle(e).color));
        assert.ok(new Set(colours).size > 6, colours.join());
        await close(page);
      }
    }
  });

  await server.stop();
  await bare.stop();
  await browser.close();
}

main().then(() => 0, (error) => {
  console.error(error);
  if (complaints.length) console.error('The browser has complained:', complaints);
  return 1;
}).then((code) => {
  for (const screen of screens) screen.end();
  for (const child of running) child.kill('SIGKILL');
  fs.rmSync(scratch, { recursive: true });
  process.exit(code);
});
