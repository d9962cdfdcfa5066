/** What needs no device but real system calls: memory, interrupts, errors in words. Skipped where koffi or Linux is missing. */
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import { describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../../src/base/index.ts";
import { LinuxMemory, type Syscalls, systemCalls } from "../../src/hosts/linux/index.ts";
import { Interrupts } from "../../src/hosts/linux/interrupts.ts";
import { refusal } from "./fake-kernel.ts";

let sys: Syscalls | undefined;
let missing: string | undefined;
try {
  sys = systemCalls();
} catch (error) {
  missing = (error as Error).message;
}

const root = join(import.meta.dirname, "../..");
const source = (path: string): string => JSON.stringify(join(root, "src/hosts/linux", path));
/** Runs a program of a few lines, in a process of its own. */
const runProgram = (program: string): ReturnType<typeof spawnSync> =>
  spawnSync(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program], {
    cwd: root,
    encoding: "utf8",
    timeout: 30_000,
  });

test.runIf(process.platform === "linux")(
  "without koffi the error says how to get it, and only real devices need it",
  () => {
    const program = `import Module from "node:module";
    const resolve = Module._resolveFilename;
    Module._resolveFilename = (name, ...rest) => {
      if (name === "koffi") throw new Error("Cannot find module 'koffi'");
      return resolve(name, ...rest);
    };
    const { LinuxHost } = await import(${source("index.ts")});
    try { new LinuxHost(); } catch (error) { process.stdout.write(error.code + " " + error.message); }`;
    expect(runProgram(program).stdout).toMatch(/^ERR_DMA_LINUX_LIBRARY .*npm install koffi@3/);
  },
);

describe.skipIf(missing)(`system calls${missing ? ` (skipped: ${missing})` : ""}`, () => {
  test("what fails says the call, the errno, the purpose and the cure", () => {
    const error = refusal(() => sys!.open("/dev/no-such-node", "open the node"));
    expect(error).toMatchObject({ code: "ERR_DMA_SYSCALL", errno: "ENOENT", details: { syscall: "open", number: 2 } });
    expect(error?.message).toMatch(/open failed with ENOENT: could not open the node\. .*dmalink doctor/);
    expect(refusal(() => sys!.ioctl(0xffff, 0x3b80, 0, "IOMMU_DESTROY", "ask"))?.errno).toBe("EBADF");
  });

  test("memory is zeroed, page aligned, and the same through its view", () => {
    const memory = new LinuxMemory(sys!);
    const buffer = memory.allocate(10_000, { locked: true });
    expect([buffer.phys % PAGE_SIZE, buffer.bytes.length]).toEqual([0, 10_000]);
    expect(buffer.bytes.every((byte) => byte === 0)).toBe(true);
    buffer.bytes[9_999] = 7;
    expect(memory.view(buffer.phys, 10_000)?.[9_999]).toBe(7);
    const read = new Uint8Array(1);
    memory.read((buffer.phys + 9_999) as never, read);
    expect(read[0]).toBe(7);
    buffer.free();
  });

  test("freed memory is an error by its handle, zeros by a view that was kept, and never a crash", () => {
    const memory = new LinuxMemory(sys!);
    const buffer = memory.allocate(PAGE_SIZE);
    const { bytes, phys } = buffer;
    bytes.fill(1);
    buffer.free();
    buffer.free();
    expect(refusal(() => buffer.bytes)?.code).toBe("ERR_DMA_LINUX_FREED");
    expect(bytes.every((byte) => byte === 0)).toBe(true);
    expect(memory.view(phys, 1)).toBeUndefined();
    expect(refusal(() => memory.read(phys, new Uint8Array(1)))?.code).toBe("ERR_DMA_LINUX_FREED");
  });

  test("shareable memory is a file of its size", () => {
    const memory = new LinuxMemory(sys!);
    using buffer = memory.allocate(PAGE_SIZE, { shareable: true });
    buffer.bytes.set([1, 2, 3]);
    const read = new Uint8Array(4);
    expect(sys!.pread(buffer.fd!, read, 0, "read it as a file")).toBe(4);
    expect([...read]).toEqual([1, 2, 3, 0]);
  });

  test("pages for rings are zeroed again, never given twice, and joined when they come back", () => {
    const memory = new LinuxMemory(sys!);
    const taken = Array.from({ length: 64 }, () => memory.allocatePages(16)!);
    expect(new Set(taken).size).toBe(64);
    memory.view((taken[0]! * PAGE_SIZE) as never, PAGE_SIZE)!.fill(9);
    for (const page of taken) memory.freePages(page, 16);
    const whole = memory.allocatePages(1024)!; // all of the block in one piece
    expect(memory.view((whole * PAGE_SIZE) as never, 1024 * PAGE_SIZE)!.every((byte) => byte === 0)).toBe(true);
  });

  test("every signal of an eventfd is one callback, of its own owner, and none comes after the end", async () => {
    const interrupts = new Interrupts(sys!);
    const came = [0, 0, 0];
    const sources = came.map((_, i) => interrupts.open(() => came[i]!++));
    const settled = async (wanted: readonly number[]): Promise<void> => {
      for (let i = 0; i < 2000 && came.join() !== wanted.join(); i++)
        await new Promise((resolve) => setTimeout(resolve, 1));
      expect(came).toEqual(wanted);
    };
    for (let i = 0; i < 100; i++) {
      sys!.signal(sources[0]!.fd);
      if (i % 2) sys!.signal(sources[2]!.fd);
    }
    await settled([100, 0, 50]);
    sys!.signal(sources[1]!.fd);
    await settled([100, 1, 50]);
    sources[0]!.close();
    sources[0]!.close();
    const again = interrupts.open(() => came[0]!++);
    sys!.signal(again.fd);
    await settled([101, 1, 50]);
    interrupts.close();
  });

  test("a process with open interrupts can exit, and one that is interrupted closes what is open", () => {
    const run = (body: string): ReturnType<typeof spawnSync> =>
      runProgram(
        `import { systemCalls } from ${source("index.ts")};
         import { Interrupts } from ${source("interrupts.ts")};
         import { closeAtExit } from ${source("cleanup.ts")};
         const interrupts = new Interrupts(systemCalls());
         closeAtExit(() => { interrupts.close(); process.stdout.write("closed\\n"); });
         interrupts.open(() => {});
         ${body}`,
      );
    expect(run("setTimeout(() => process.exit(5), 100);")).toMatchObject({ status: 5, stdout: "closed\n" });
    expect(run("setTimeout(() => { throw new Error('no'); }, 100);")).toMatchObject({ status: 1, stdout: "closed\n" });
    expect(run("setTimeout(() => process.kill(process.pid, 'SIGINT'), 100);")).toMatchObject({
      signal: "SIGINT",
      stdout: "closed\n",
    });
  });
});
