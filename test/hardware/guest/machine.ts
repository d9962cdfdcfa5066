/** The machine around the guest, asked through the folder that both share (../monitor.ts answers). */
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";

const QUESTION = "/host/ask";
const ANSWER = "/host/answer";

/** Says `line` to QEMU's monitor. @throws Error what it objects, or that nobody answered in ten seconds */
export async function askMachine(line: string): Promise<void> {
  rmSync(ANSWER, { force: true });
  writeFileSync(`${QUESTION}.new`, line);
  renameSync(`${QUESTION}.new`, QUESTION);
  for (let i = 0; i < 1000; i++) {
    if (existsSync(ANSWER)) {
      const said = readFileSync(ANSWER, "utf8");
      rmSync(ANSWER);
      if (/^(Error|unknown|invalid|no answer)/im.test(said)) throw new Error(`QEMU: ${said}`);
      return;
    }
    await new Promise((resolve) => setTimeout(resolve, 10));
  }
  throw new Error(`QEMU was asked "${line}", and nobody answered`);
}
