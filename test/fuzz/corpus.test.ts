/** Every file that the long run of fuzzing ever found to fail, through the commands that read it. */
import { readdirSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";
import { COMMANDS_OF, faultOf } from "./file-budget.ts";

const corpus = join(import.meta.dirname, "corpus");
const files = readdirSync(corpus).filter((name) => !name.endsWith(".md"));

test("files that once failed do so no more", async () => {
  for (const name of files) {
    const kind = name.includes(".snap") ? "snapshot" : name.includes(".log") ? "log" : "trace";
    for (const [command, ...options] of COMMANDS_OF[kind])
      expect(await faultOf([command!, join(corpus, name), ...options]), `${command} ${name}`).toBeUndefined();
  }
});

test("a refusal is an answer, and an exit code that is neither is noticed", async () => {
  expect(await faultOf(["check", join(corpus, "not there")])).toBeUndefined();
  expect(await faultOf(["unbind", "0000:00:04.0"])).toMatch(/^exit code 3: .*say --yes/);
});
