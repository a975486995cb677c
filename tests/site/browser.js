// node browser.js HTML: the built site in a real browser, headless. With a folder in CHATPROTO_SHOTS it puts pictures there.
// Needs playwright-core and Chromium ($CHROMIUM); without them it exits with 77.
'use strict';
const assert = require('node:assert/strict');
const fs = require('node:fs');
const http = require('node:http');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const html = path.resolve(process.argv[2]);
const shots = process.env.CHATPROTO_SHOTS;
const chromium = process.env.CHROMIUM || '/usr/bin/chromium';
let playwright;
try {
  playwright = require('playwright-core');
  fs.accessSync(chromium);
} catch (error) {
  console.log(`skipped: ${error.message.split('\n')[0]}`);
  process.exit(77);
}

const types = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.png': 'image/png' };
const server = http.createServer((request, response) => {
  const name = decodeURIComponent(new URL(request.url, 'http://site').pathname).replace(/\/$/, '/index.html');
  if (name === '/favicon.ico') return response.writeHead(204).end();  // asked for by the browser, not by a page
  fs.readFile(path.join(html, path.normalize(name)), (error, bytes) => {
    if (error) return response.writeHead(404).end();
    response.writeHead(200, { 'Content-Type': types[path.extname(name)] || 'text/plain' }).end(bytes);
  });
});

const wide = { width: 1280, height: 900 };
const narrow = { width: 390, height: 844 };

async function main() {
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  const site = `http://127.0.0.1:${server.address().port}/`;
  const browser = await playwright.chromium.launch({ executablePath: chromium });

  // A page of the browser whose every complaint ends up in `complaints`.
  const complaints = [];
  async function open(options) {
    const page = await (await browser.newContext({ viewport: wide, ...options })).newPage();
    page.setDefaultTimeout(120000);
    const complain = (what) => complaints.push(`${page.url()}: ${what}`);
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complain(message.text()));
    page.on('pageerror', (error) => complain(error.message));
    page.on('response', (response) => response.status() >= 400 && complain(`${response.status()} ${response.url()}`));
    page.on('requestfailed', (request) => {
      // A page that is left while it loads is no failure.
      if (request.failure().errorText !== 'net::ERR_ABORTED') complain(`${request.failure().errorText} ${request.url()}`);
    });
    return page;
  }
  async function shoot(page, name) {
    if (shots) await page.screenshot({ path: path.join(shots, `${name}.png`) });
  }
  async function part(name, body) {
    const start = Date.now();
    const result = await body();
    assert.deepEqual(complaints, [], name);
    console.log(`ok: ${name}${result ? `: ${result}` : ''} (${((Date.now() - start) / 1000).toFixed(1)} s)`);
  }

  await part('the browser notices a script that fails and a file that is missing', async () => {
    const page = await open({});
    await page.goto(site + 'index.html');
    await page.evaluate(() => { setTimeout(() => { throw new Error('thrown'); }); });
    await page.evaluate(() => new Promise((done) => {
      const image = new Image();
      image.onerror = done;
      image.src = 'no-such-file.png';
    }));
    const found = complaints.splice(0).join('\n');
    assert.match(found, /thrown/);
    assert.match(found, /404 .*no-such-file/);
    await page.context().close();
  });

  const pages = fs.readdirSync(html).filter((name) => name.endsWith('.html'));
  await part('each page loads, with its pictures, has no Markdown left, and is not wider than a narrow screen', async () => {
    const page = await open({ viewport: narrow });
    const wrong = {};
    for (const name of pages) {
      await page.goto(site + name);
      assert.ok(await page.title(), name);
      const seen = await page.evaluate(() => [
        ...[...document.querySelectorAll('.textblock > p, .textblock li, .textblock td, .textblock h1, .textblock h2')].map((e) => {
          const text = e.cloneNode(true);
          text.querySelectorAll('code, pre').forEach((code) => code.remove());
          return text.textContent;
        }).filter((text) => /\*\*|`|\]\(/.test(text)).map((text) => `unread Markdown: ${text}`),
        ...[...document.images].filter((image) => image.complete && !image.naturalWidth).map((image) => image.src),
        ...[...document.querySelectorAll('html, body, #doc-content')].filter((e) => e.scrollWidth > e.clientWidth)
          .map((e) => `${e.id || e.tagName} ${e.scrollWidth} > ${e.clientWidth}`)]);
      if (seen.length) wrong[name] = seen;
    }
    assert.deepEqual(wrong, {});
    for (const name of ['index', 'md_docs_tutorial', 'md_docs_protocol', 'md_docs_synchronisation', 'classchatproto_1_1Server',
      'conceptchatproto_1_1Service']) {
      await page.goto(`${site}${name}.html`);
      await shoot(page, `narrow-${name}`);
    }
    await page.context().close();
    return `${pages.length} pages`;
  });

  await part('the first screen has the server and the way on', async () => {
    const page = await open({});
    await page.goto(site);
    await shoot(page, 'index');
    for (const what of ['.contents div.fragment >> nth=0', '.contents >> text=tutorial']) {
      const box = await page.locator(what).first().boundingBox();
      assert.ok(box && box.y >= 0 && box.y + box.height <= wide.height, `${what} is not on the first screen`);
    }
    await page.context().close();
  });

  await part('the menu leads to each page', async () => {
    const page = await open({});
    const tree = [['Tutorial'], ['How to'], ['Install'], ['Operate'], ['How it works', 'Protocol'], ['How it works', 'Design'], ['How it works', 'Synchronisation'],
      ['How it works', 'Reliability'], ['How it works', 'Performance'], ['Reference', 'All names'], ['Reference', 'Classes'], ['Reference', 'Concepts'],
      ['Reference', 'Headers'], ['Reference', 'Examples'], ['Project', 'README'], ['Project', 'Changes']];
    await page.goto(site);
    for (const titles of tree) {
      const entry = (title) => page.locator('#nav-tree .label a').filter({ hasText: new RegExp(`^${title}$`) }).first();
      const title = titles.at(-1);
      await entry(titles[0]).waitFor();
      if (!(await entry(title).isVisible())) await entry(titles[0]).click();  // which shows what belongs to it
      await entry(title).click();
      await page.waitForFunction((wanted) => document.querySelector('#nav-tree .selected .label')?.innerText.trim() === wanted, title);
      assert.doesNotMatch(page.url(), /\/(index.html)?$/);
      if (titles.length > 1) await shoot(page, `menu-${title}`);
    }
    await page.context().close();
    return `${tree.length} entries`;
  });

  await part('on a narrow screen the menu opens, and leads on', async () => {
    const page = await open({ viewport: narrow });
    await page.goto(site);
    const entry = (title) => page.locator('#main-menu a').filter({ hasText: new RegExp(`^${title}`) }).first();
    assert.ok(!(await entry('Tutorial').isVisible()));
    await page.locator('label.main-menu-btn').click();
    await entry('How it works').click();
    await entry('Protocol').waitFor();
    await shoot(page, 'narrow-menu');
    await entry('Protocol').click();
    await page.waitForURL(/md_docs_protocol\.html/);
    await page.context().close();
  });

  for (const where of [site, pathToFileURL(html).href + '/']) {
    await part(`the search finds the class Server, from ${new URL(where).protocol}`, async () => {
      const page = await open({});
      await page.goto(where + 'index.html');
      await page.locator('#MSearchField').click();
      await page.keyboard.type('Server', { delay: 50 });
      const results = page.frameLocator('#MSearchResults');
      const found = results.locator('.SRResult', { has: page.locator('a.SRSymbol', { hasText: /^Server$/ }) }).first();
      await found.waitFor();
      await shoot(page, 'search');
      // Leads to the class, or shows the class and its constructor: Doxygen joins them if it happens to sort them side
      // by side, as there are members called `server`.
      const meanings = found.locator('.SRChildren a').filter({ hasText: /^chatproto::Server</ });
      const isShown = await meanings.count() > 0;
      await found.locator('a.SRSymbol').click();
      if (isShown) await meanings.click();
      await page.waitForURL(/classchatproto_1_1Server\.html/);
      assert.match(await page.locator('.headertitle').innerText(), /chatproto::Server/);
      await page.context().close();
      // Among files the list of results may not close itself, in Chromium and with Doxygen 1.9.4.
      const blocked = /Blocked a frame with origin "null" from accessing a cross-origin frame/;
      if (where !== site) complaints.splice(0, Infinity, ...complaints.filter((what) => !blocked.test(what)));
    });
  }

  for (const where of [site, pathToFileURL(html).href + '/']) {
    await part(`the search finds words in texts, by keyboard alone, from ${new URL(where).protocol}`, async () => {
      const page = await open({ viewport: narrow });
      await page.goto(where + 'index.html');
      await page.locator('#MSearchField').focus();
      await page.keyboard.type('terminals cleanly SIGHU');  // another form of a word, and the begin of one that is no name
      await page.keyboard.press('Enter');
      await page.waitForURL(/search\.html\?q=terminals%20cleanly%20SIGHU$/);
      const found = page.locator('#found li').first();
      assert.equal(await found.locator('a').innerText(), 'Operate › Start and stop');
      const marked = await found.locator('mark').allInnerTexts();
      assert.ok(['terminal', 'SIGHUP'].every((word) => marked.includes(word)), marked.join());
      await shoot(page, 'narrow-search');
      await page.keyboard.press('Tab');  // from the field to its button
      await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
      await page.waitForURL(/md_docs_operate\.html#./);
      const heading = page.locator('h1', { has: page.locator(`[id="${new URL(page.url()).hash.slice(1)}"]`) });
      assert.equal((await heading.innerText()).trim(), 'Start and stop');

      const nonsense = '<img src="no-such-file.png"> xyzzy';
      await page.goto(where + 'search.html?q=' + encodeURIComponent(nonsense));
      assert.equal(await page.locator('#found-count').innerText(), `Nothing found for “${nonsense}”.`);
      assert.equal(await page.locator('#found li, .contents img').count(), 0);
      await page.context().close();
      const size = fs.statSync(path.join(html, 'texts.js')).size;
      assert.ok(size < 1e6, `${size} bytes to search`);
      return `${Math.round(size / 1000)} kB to search`;
    });
  }

  await part('dark mode changes the colours, and is remembered', async () => {
    const page = await open({ colorScheme: 'light' });
    const colours = () => page.evaluate(() => {
      const style = getComputedStyle(document.querySelector('.contents'));
      return [getComputedStyle(document.body).backgroundColor, style.color];
    });
    const light = ([red, green, blue]) => red + green + blue > 3 * 128;
    const parse = (colour) => colour.match(/\d+/g).map(Number);
    await page.goto(site);
    const toggle = page.locator('doxygen-awesome-dark-mode-toggle');
    const before = await colours();
    await toggle.click();
    const after = await colours();
    assert.deepEqual(before.map((colour) => light(parse(colour))), [true, false], 'light: ' + before);
    assert.deepEqual(after.map((colour) => light(parse(colour))), [false, true], 'dark: ' + after);
    await shoot(page, 'dark');
    for (const name of ['md_docs_protocol', 'md_docs_design', 'md_docs_performance', 'classchatproto_1_1Server']) {
      await page.goto(`${site}${name}.html`);
      assert.deepEqual(await colours(), after, name);
      await shoot(page, `dark-${name}`);
    }
    await page.context().close();
  });

  await part('without JavaScript the first page can be read, and leads on', async () => {
    const page = await open({ javaScriptEnabled: false });
    await page.goto(site);
    await shoot(page, 'no-script');
    assert.match(await page.locator('.contents').innerText(), /network services/);
    const links = ['tutorial', 'how-to', 'Install', 'operate', 'protocol', 'Design', 'synchronisation', 'reliability', 'performance', 'Server', 'Connection'];
    for (const text of links) {
      await page.goto(site);
      await page.locator('.contents a').filter({ hasText: new RegExp(`^${text}$`) }).first().click();
      await page.waitForLoadState();
      const contents = page.locator('.contents');
      assert.ok((await contents.innerText()).length > 200 && (await contents.boundingBox()).width > 700, text);
    }
    await page.context().close();
    return `${links.length} links`;
  });

  if (shots) {
    const page = await open({ viewport: { width: 1280, height: 1600 } });
    for (const name of ['md_docs_tutorial', 'md_docs_protocol', 'md_docs_design', 'md_docs_performance', 'md_docs_synchronisation',
      'md_README', 'classchatproto_1_1Server', 'structchatproto_1_1ServerOptions', 'classchatproto_1_1Connection',
      'conceptchatproto_1_1Service', 'server_8hpp', 'annotated']) {
      await page.goto(`${site}${name}.html`);
      await page.waitForTimeout(300);
      await shoot(page, name);
    }
  }
  await browser.close();
}

main().then(() => process.exit(0), (error) => {
  console.error(error);
  process.exit(1);
});
