/**
 * What the guest asks of the machine that it runs on: QEMU's monitor, through the folder that both share.
 *
 * Idea: the guest writes a line of the monitor's language into a file (guest/machine.ts), this side finds it, says it to QEMU's
 * socket (QMP, human-monitor-command), and writes the answer beside it.
 */
import { once } from "node:events";
import { existsSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import { join } from "node:path";
import { createInterface } from "node:readline";

/** Milliseconds between two looks. */
const INTERVAL = 50;

/** Answers what the guest asks until the answer's function is called. */
export function serveMonitor(share: string): () => void {
  const question = join(share, "ask");
  const answer = join(share, "answer");
  let busy = false;
  const timer = setInterval(async () => {
    if (busy || !existsSync(question)) return;
    busy = true;
    const line = readFileSync(question, "utf8");
    rmSync(question);
    let said: string;
    try {
      said = await say(join(share, "qmp.sock"), line);
    } catch (error) {
      said = `no answer from QEMU: ${error}`;
    }
    writeFileSync(`${answer}.new`, said);
    renameSync(`${answer}.new`, answer); // whole, or not there
    busy = false;
  }, INTERVAL);
  return () => clearInterval(timer);
}

/** What the monitor prints; empty where it has nothing to object. */
async function say(path: string, line: string): Promise<string> {
  const socket = connect(path);
  try {
    await once(socket, "connect");
    const lines = createInterface({ input: socket })[Symbol.asyncIterator]();
    /** Events may come between. */
    const reply = async (): Promise<string> => {
      for (;;) {
        const { value, done } = await lines.next();
        if (done) throw new Error("it closed the connection");
        const said = JSON.parse(value);
        if ("error" in said) throw new Error(said.error.desc);
        if ("return" in said) return String(said.return);
      }
    };
    socket.write(`${JSON.stringify({ execute: "qmp_capabilities" })}\n`);
    await reply();
    const command = { execute: "human-monitor-command", arguments: { "command-line": line } };
    socket.write(`${JSON.stringify(command)}\n`);
    return (await reply()).trim();
  } finally {
    socket.destroy();
  }
}
