/**
 * Another process, for what one process cannot show: another user, a limit, a second owner, a death in the middle. The same
 * program is started again with the name of a role; what it says is one line of JSON.
 */
import { type ChildProcess, spawn } from "node:child_process";
import { PhysAddr } from "../../../src/base/index.ts";
import { Nvme } from "../../../src/consumers/nvme/index.ts";
import { Dma } from "../../../src/dma/index.ts";
import { type BackEnd, LinuxHost } from "../../../src/hosts/linux/index.ts";

export type Role = "map" | "write-forever";

export interface ChildAnswer {
  readonly ok?: true;
  readonly code?: string;
  readonly errno?: string;
  readonly message?: string;
}

export interface ChildOptions {
  readonly uid?: number;
  /** KiB that it may lock. */
  readonly lockedKiB?: number;
}

/** Starts the program in a role. Its memory is its own: nothing pinned is copied, because buffers are shared mappings. */
export function startChild(role: Role, device: string, backEnd: BackEnd, options: ChildOptions = {}): ChildProcess {
  const { uid, lockedKiB } = options;
  const limit = lockedKiB === undefined ? "" : `ulimit -l ${lockedKiB}; `;
  const command = `${limit}exec ${process.execPath} ${process.argv[1]} ${role} ${device} ${backEnd} ${uid ?? 0}`;
  return spawn("sh", ["-c", command], { stdio: ["ignore", "pipe", "inherit"] });
}

/** The first line that the child says. */
export async function answerOf(child: ChildProcess): Promise<ChildAnswer> {
  let text = "";
  for await (const chunk of child.stdout!) {
    text += chunk;
    if (text.includes("\n")) break;
  }
  return JSON.parse(text.split("\n")[0] || '{"message":"the child said nothing"}') as ChildAnswer;
}

/** What the child does, as the user that it is told to be. */
export async function playRole(role: Role, name: string, backEnd: BackEnd, uid: number): Promise<void> {
  if (uid !== 0) {
    process.setgid!(uid); // here and not before: only root may raise a limit
    process.setuid!(uid);
  }
  const say = (answer: ChildAnswer): void => void process.stdout.write(`${JSON.stringify(answer)}\n`);
  try {
    using host = new LinuxHost();
    const { device } = host.openDevice(name, { backEnd });
    const dma = new Dma({ domain: device.domain, name, machine: host.dmaMachine });
    const buffer = host.memory.allocate(2 ** 20);
    if (role === "map") {
      using _mapping = dma.map(buffer.phys, buffer.length, "to-device");
      say({ ok: true });
      return;
    }
    const nvme = await Nvme.open(device, dma, { clock: host.clock });
    const writer = async (i: number): Promise<never> => {
      for (;;) await nvme.write(4096 + i * 256, [{ phys: PhysAddr(buffer.phys + i * 65_536), length: 65_536 }]);
    };
    const writers = Array.from({ length: 16 }, (_, i) => writer(i));
    setTimeout(() => say({ ok: true }), 300);
    await Promise.all(writers);
  } catch (error) {
    const { code, errno, message } = error as Error & { code?: string; errno?: string };
    say({ ...(code && { code }), ...(errno && { errno }), message });
  }
}
