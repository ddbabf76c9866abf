// The dashboard over a farm that runs: `node farm.mjs PORT RUN LIVE PROJECT`. RUN has failed, LIVE runs now; the token of a developer
// is read from standard input.
//
// As somebody who does not sit at the farm's machine: the browser knows it by another name, so that it has to sign in. Then two clicks from a
// red run to the line that explains it, a run that is followed while it goes on, a rerun by the page's button, and each page of what
// real runs have left: in light, in dark and on a phone, with axe. Prints a line for each failure and ends with 1 where there is one.

import { readFileSync } from "node:fs";
import { DESK, ELSEWHERE, PHONE, Browser, widerThanItsWindow } from "./browse.mjs";

const [port, run, live, project] = process.argv.slice(2);
const token = readFileSync(0, "utf8").trim();
if (!project || !token) throw new Error("write: node farm.mjs PORT RUN LIVE PROJECT <<<TOKEN");
const PATIENCE = { timeout: 60_000 };

const browser = await Browser.launch(`http://${ELSEWHERE}:${port}`);
const { fail } = browser;
const at = (page) => new URL(page.url()).pathname;
const says = (page, words) => page.getByText(words).first().waitFor(PATIENCE).then(() => true, () => false);

const signIn = async (page, shown) => {
  await page.locator('input[name="token"]').fill(shown);
  await page.locator("form button.primary").click();
};

const page = await browser.open({ viewport: DESK });
await browser.go(page, `/runs/${run}`);
if (at(page) !== "/sign-in") fail(`a stranger is shown ${at(page)}`);
await browser.judge(page, "sign-in");
await signIn(page, "0123456789abcdef0123456789abcdef");
if (!(await says(page, "That is not a token of this farm."))) fail("a wrong token is not refused");
await signIn(page, token);
if (at(page) !== `/runs/${run}`) fail(`after signing in one is at ${at(page)}, not at the run`);

// From a red run to the line that explains it.
const failed = page.locator(".failure").first();
const name = await failed.locator("h3").innerText();
await failed.locator('a[href$="/log#why"]').click();
if (!(await page.locator("#why").isVisible())) fail(`the log of ${name} has no line that explains it`);

// A run that goes on is followed.
await browser.go(page, `/runs/${live}`);
await page.locator("#live.on").waitFor(PATIENCE).catch(() => fail("the page of a run does not go live"));
const was = await page.locator("#part-progress").innerText();
await page
  .waitForFunction((was) => document.getElementById("part-progress").innerText !== was, was, PATIENCE)
  .catch(() => fail("the page of a run does not follow it"));

// The button runs again what failed, and leads to that run, which is followed to its end.
await browser.go(page, `/runs/${run}`);
await page.getByRole("button", { name: "Rerun what failed" }).click();
await page.waitForURL((url) => /^\/runs\/\d+$/.test(url.pathname) && url.pathname !== `/runs/${run}`, PATIENCE)
  .catch(() => fail(`the rerun leads to ${at(page)}`));
const rerun = at(page);
if (!(await says(page, `a rerun of`))) fail("the rerun does not say of which run");
await page.waitForFunction(() => /failed/.test(document.getElementById("part-head").innerText), null, PATIENCE)
  .catch(() => fail("the rerun is not followed to its end"));
console.log(`rerun ${rerun}`);

const link = async (path, selector) => {
  await browser.go(page, path);
  return page.locator(selector).first().getAttribute("href", PATIENCE);
};
const test = await link(`/runs/${run}`, ".failure h3 a");
const pages = {
  overview: "/", runs: "/runs", projects: "/projects", project: `/projects/${project}`, run: `/runs/${run}`, rerun,
  tests: `/runs/${run}/tests`, test, history: await link(test, 'a[href$="/history"]'), log: `/runs/${run}/log`, baselines: "/baselines",
  baseline: await link("/baselines", 'a[href^="/baselines/"]'), workers: "/workers",
  worker: await link("/workers", 'th a[href^="/workers/"]'),
};
const cookies = await page.context().cookies();
for (const looks of [{ colorScheme: "light" }, { colorScheme: "dark" }, { viewport: PHONE, isMobile: true, hasTouch: true }]) {
  const like = looks.colorScheme ?? "phone";
  const other = await browser.open({ viewport: DESK, ...looks });
  await other.context().addCookies(cookies);
  for (const [name, path] of Object.entries(pages)) {
    const status = await browser.go(other, path);
    if (status !== 200 || at(other) !== path) fail(`${name}, ${like}: ${status} at ${at(other)}`);
    if (like === "phone") {
      const wide = await widerThanItsWindow(other);
      if (wide > 0) fail(`${name}: ${wide} px wider than a phone`);
    } else {
      await browser.judge(other, `${name}, ${like}`);
    }
  }
  await other.context().close();
}

await browser.go(page, "/");
await page.getByRole("button", { name: "Sign out" }).click();
await browser.go(page, "/runs");
if (at(page) !== "/sign-in") fail(`after signing out one is shown ${at(page)}`);

await browser.end(`${Object.keys(pages).length} pages of a farm that runs`);
