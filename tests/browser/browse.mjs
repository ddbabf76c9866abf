// A real browser for the scripts beside this one: pages of one farm, what axe finds in them, and a count of what failed.

import { readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { existsSync } from "node:fs";
import { chromium } from "playwright-core";

export const DESK = { width: 1280, height: 860 };
export const PHONE = { width: 360, height: 740 };

// This machine by another name: who knows it so does not sit at it, and has to sign in.
export const ELSEWHERE = "farm.example";

// What a browser says of a farm that is served without TLS under a name: the header is of use where there is TLS.
const OF_NO_TLS = "The Cross-Origin-Opener-Policy header has been ignored";

const RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"];

// That one page is missing, and that a wrong token is refused, is what is looked at there.
const isMeant = (url, text) =>
  url.endsWith("/nowhere") || (url.endsWith("/sign-in") && text.includes("status of 403")) || text.startsWith(OF_NO_TLS);

// How many pixels of a page cannot be seen without moving it to the side.
export const widerThanItsWindow = (page) =>
  page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);

export class Browser {
  failures = 0;

  static async launch(address) {
    const executablePath = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(existsSync);
    if (!executablePath) throw new Error("no chromium here: apt-get install chromium");
    const args = ["--no-sandbox", "--disable-gpu", "--disable-quic", `--host-resolver-rules=MAP ${ELSEWHERE} 127.0.0.1`];
    const axe = await readFile(createRequire(import.meta.url).resolve("axe-core/axe.min.js"), "utf8");
    return new Browser(address, await chromium.launch({ executablePath, args }), axe);
  }

  constructor(address, chrome, axe) {
    Object.assign(this, { address, chrome, axe });
  }

  fail = (text) => {
    this.failures += 1;
    console.log(`FAILED ${text}`);
  };

  // What the policy refuses and what scripts throw is told in the console.
  async open(options) {
    // axe is put into pages, which their policy forbids to everybody else.
    const context = await this.chrome.newContext({ bypassCSP: false, reducedMotion: "reduce", ...options });
    const page = await context.newPage();
    page.on("console", (message) => {
      if (message.type() === "error" && !isMeant(page.url(), message.text())) this.fail(`${page.url()}: ${message.text()}`);
    });
    page.on("pageerror", (error) => this.fail(`${page.url()}: ${error.message}`));
    return page;
  }

  // The status that the page has.
  async go(page, path) {
    const response = await page.goto(this.address + path, { waitUntil: "load" });
    return response.status();
  }

  async judge(page, name) {
    // Through the debugger, which stands outside of the page's policy.
    await page.evaluate(this.axe);
    const { violations } = await page.evaluate((runOnly) => globalThis.axe.run(document, { runOnly }), RULES);
    for (const { id, impact, help, nodes } of violations) {
      const text = `${name}: axe ${impact} ${id}: ${help}: ${nodes.slice(0, 3).map((node) => node.target.join(" ")).join(", ")}`;
      if (impact === "serious" || impact === "critical") this.fail(text);
      else console.log(`note ${text}`);
    }
  }

  // Prints the count and ends with 1 where anything failed.
  async end(what) {
    await this.chrome.close();
    console.log(`${what}: ${this.failures} failures`);
    process.exit(this.failures ? 1 : 0);
  }
}
