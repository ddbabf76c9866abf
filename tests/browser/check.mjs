// The dashboard in a real browser, over a farm that is made up: `node check.mjs URL [--pictures FOLDER]`.
//
// For each page: nothing of WCAG 2 A and AA that axe finds serious, in light and in dark; nothing that the Content-Security-Policy
// had to refuse; nothing wider than a phone. Then what only a browser can show: charts that zoom, parts that follow a run, the keyboard.
// Prints a line for each failure and ends with 1 where there is one.

import { DESK, ELSEWHERE, PHONE, Browser, widerThanItsWindow } from "./browse.mjs";

const [address, option, folder] = process.argv.slice(2);
if (!address) throw new Error("write: node check.mjs URL [--pictures FOLDER]");
const pictures = option === "--pictures" ? folder : null;
const browser = await Browser.launch(address);
const { fail } = browser;
const open = (options) => browser.open(options);
const go = (page, path) => browser.go(page, path);

// Addresses of pages that hold something: found by their links, as a person would.
const first = await open({ viewport: DESK });
await go(first, "/projects/shop");
const link = async (selector) => {
  const found = await first.locator(selector).first().getAttribute("href");
  if (!found) throw new Error(`no link ${selector} on ${first.url()}`);
  return found;
};
const red = (await link('tr[data-mark~="failed"] td a[href$="#failures"]')).replace("#failures", "");
const baseline = await link('td a[href^="/baselines/"]');
await go(first, red);
const log = await link('a[href$="/log#why"]');
const test = await link(".failure h3 a");
await go(first, test);
const history = await link('a[href$="/history"]');
await go(first, "/workers");
const worker = await link('th a[href^="/workers/"]').catch(() => "/workers");
await go(first, "/projects/shop/owners");
const owner = await link('td a[href*="/owners/"], th a[href*="/owners/"]');
await go(first, red);
const commit = await link('a[href^="/commits/"]');
const pages = {
  overview: "/", runs: "/runs", projects: "/projects", project: "/projects/shop", run: red, tests: `${red}/tests`, test, history, log,
  owners: "/projects/shop/owners", owner, commit, baselines: "/baselines", baseline, workers: "/workers", worker, missing: "/nowhere",
};

for (const colorScheme of ["light", "dark"]) {
  const page = await open({ viewport: DESK, colorScheme });
  for (const [name, path] of Object.entries(pages)) {
    const status = await go(page, path);
    if (status !== (name === "missing" ? 404 : 200)) fail(`${name}: ${status}`);
    await browser.judge(page, `${name}, ${colorScheme}`);
    if (pictures && (colorScheme === "light" || ["overview", "project"].includes(name))) {
      await page.screenshot({ path: `${pictures}/${name}-${colorScheme}.png`, fullPage: process.env.FULL === "1" });
    }
  }
  await page.context().close();
}

const elsewhere = Object.assign(new URL(address), { hostname: ELSEWHERE });
const stranger = await open({ viewport: DESK, colorScheme: "light" });
await stranger.goto(elsewhere.href);
if (new URL(stranger.url()).pathname !== "/sign-in") fail(`a stranger is shown ${stranger.url()}`);
await browser.judge(stranger, "sign-in");
if (pictures) await stranger.screenshot({ path: `${pictures}/sign-in-light.png` });

const phone = await open({ viewport: PHONE, isMobile: true, hasTouch: true });
for (const [name, path] of Object.entries(pages)) {
  await go(phone, path);
  const wide = await widerThanItsWindow(phone);
  if (wide > 0) fail(`${name}: ${wide} px wider than a phone`);
  if (pictures && ["overview", "run", "project"].includes(name)) await phone.screenshot({ path: `${pictures}/${name}-phone.png` });
}

// The chart is there, zooms, and says which commit is pointed at.
await go(first, "/projects/shop");
const labels = () => first.locator(".u-legend").innerText();
await first.locator(".chart canvas").waitFor();
const box = await first.locator(".u-over").boundingBox();
await first.mouse.move(box.x + box.width / 2, box.y + box.height / 2);
if (!/run \d+/.test(await labels())) fail("the chart does not say what is pointed at");
const shot = async () => (await first.locator(".chart .plot").screenshot()).toString("base64");
await first.mouse.move(0, 0);
const before = await shot();
await first.locator('button[data-act="in"]').click();
await first.mouse.move(0, 0);
if ((await shot()) === before) fail("the chart does not zoom");
await first.locator("#series").selectOption({ index: 2 });
if (!/Wall|Lead|Queue/.test(await labels())) fail("the chart shows no other series");

// The keyboard: the first stop skips to the content.
await go(first, "/");
await first.keyboard.press("Tab");
if ((await first.evaluate(() => document.activeElement.className)) !== "skip") fail("the first stop of the keyboard is not the skip link");

// The first page follows the farm where one runs.
const running = first.locator('#part-active a[href^="/runs/"]').first();
await first.locator("#live.on").waitFor({ timeout: 10_000 }).catch(() => fail("the first page does not go live"));
if (await running.count()) {
  await go(first, await running.getAttribute("href"));
  const said = () => first.locator("#part-progress").innerText();
  const was = await said();
  await first.waitForFunction((was) => document.getElementById("part-progress").innerText !== was, was, { timeout: 15_000 })
    .catch(() => fail("the page of a run does not follow it"));
}

// Without scripts there is a page all the same.
const plain = await open({ viewport: DESK, javaScriptEnabled: false });
await go(plain, "/projects/shop");
if (!(await plain.locator("#runs tbody tr").count())) fail("without scripts a project has no runs");
if (await plain.locator(".chart:visible").count()) fail("without scripts an empty chart is shown");

await browser.end(`${Object.keys(pages).length} pages in light, dark and at ${PHONE.width} px`);
