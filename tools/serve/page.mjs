// The page of `pocketlm serve` in Chromium, by puppeteer: node page.mjs PACKAGES CHROMIUM URL [PICTURES].
import assert from "node:assert/strict";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

const [folder, chromium, url, pictures] = process.argv.slice(2);
const entry = createRequire(path.resolve(folder, "x")).resolve("puppeteer-core");
const puppeteer = await import(pathToFileURL(entry));
const browser = await (puppeteer.default ?? puppeteer).launch({ executablePath: chromium, headless: true, args: ["--no-sandbox", "--disable-gpu"] });

try {
  const page = await browser.newPage();
  const wrong = [];
  const asked = [];
  page.on("pageerror", (error) => wrong.push(String(error)));
  page.on("console", (message) => message.type() === "error" && wrong.push(message.text()));
  page.on("request", (request) => asked.push(request.url()));
  await page.setViewport({ width: 900, height: 700 });
  await page.goto(url);
  await page.waitForFunction(() => document.getElementById("model").textContent.includes("weights"));
  const picture = async (name) => pictures && (await page.screenshot({ path: path.join(pictures, `${name}.png`) }));
  const answers = () => page.$$eval("article.assistant .text", (all) => all.map((one) => one.innerText));
  const idle = () => page.waitForFunction(() => !document.getElementById("send").hidden, { timeout: 120_000 });
  await picture("begin");

  // By keyboard alone: the field has the focus.
  await page.keyboard.type("Count from 1 to 5.");
  await page.keyboard.press("Enter");
  await page.waitForFunction(() => document.querySelector("article.assistant .text")?.textContent.length > 3, { timeout: 60_000 });
  await idle();
  const [first] = await answers();
  assert(first.length > 5, first);
  assert.match(await page.$eval("article.assistant .foot", (foot) => foot.innerText), /tokens, [\d.]+\/s/);
  await picture("answer");

  // What is under way is stopped, by the button and by the key.
  for (const stop of [() => page.click("#stop"), () => page.keyboard.press("Escape")]) {
    const before = (await answers()).length;
    await page.focus("#question");
    await page.keyboard.type("Write a very long story of a dog, with many chapters.");
    await page.keyboard.press("Enter");
    await page.waitForFunction((count) => document.querySelectorAll("article.assistant .text")[count]?.textContent.length > 20, { timeout: 60_000 }, before);
    await stop();
    await idle();
    assert.match((await page.$$eval("article.assistant .foot", (all) => all.map((foot) => foot.innerText))).at(-1), /stopped/);
  }
  await picture("stopped");

  // Whatever an answer holds, it is text.
  const evil = "# Title\n**bold** `code` <img src=x onerror=\"window.hacked=1\"> [x](javascript:window.hacked=1) [y](https://example.org/)\n- one\n- two\n```html\n<script>window.hacked=1</script>\n```\n<svg onload=\"window.hacked=1\">";
  const shown = await page.evaluate((evil) => {
    const box = document.createElement("div");
    markdown(box, evil);
    document.getElementById("log").append(box);
    return { html: box.innerHTML, links: [...box.querySelectorAll("a")].map((link) => link.href), text: box.textContent };
  }, evil);
  assert.deepEqual(shown.links, ["https://example.org/"]);
  assert(!/<(img|script|svg)/i.test(shown.html) && shown.text.includes("<img src=x"), shown.html);
  assert(/<h3>Title<\/h3>/.test(shown.html) && /<strong>bold<\/strong>/.test(shown.html) && /<li>two<\/li>/.test(shown.html), shown.html);
  assert.equal(await page.evaluate(() => window.hacked), undefined);
  await picture("markdown");
  // And its policy would not have run it anyway, nor let it ask elsewhere: these two are to fail.
  const policed = await page.evaluate(async () => {
    const script = document.createElement("script");
    script.textContent = "window.hacked = 2";
    document.body.append(script);
    return [window.hacked ?? "not run", await fetch("https://example.org/").then(() => "asked", () => "kept in")];
  });
  assert.deepEqual(policed, ["not run", "kept in"]);
  const refused = wrong.splice(0).filter((text) => !/Content Security Policy|violates|Failed to fetch|ERR_/.test(text));
  assert.deepEqual(refused, []);

  // Each thing that can be used has a name.
  const nameless = await page.$$eval("button, input, textarea", (all) => all.filter((one) => !(one.innerText || one.labels?.[0]?.innerText || one.ariaLabel)).map((one) => one.outerHTML));
  assert.deepEqual(nameless, []);
  await page.click("#new");
  assert.deepEqual(await answers(), []);
  await page.click("#toggle");
  await page.emulateMediaFeatures([{ name: "prefers-color-scheme", value: "dark" }]);
  await picture("settings-dark");
  await page.setViewport({ width: 360, height: 640 });
  assert(await page.evaluate(() => document.documentElement.scrollWidth <= window.innerWidth), "it fits a phone");
  await picture("narrow");
  const strangers = asked.filter((one) => !one.startsWith(url) && !one.startsWith("data:") && one !== "https://example.org/");
  assert.deepEqual(strangers, []);
  console.log(`the page in ${await browser.version()} is fine`);
} finally {
  await browser.close();
}
