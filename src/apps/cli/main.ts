#!/usr/bin/env node
/**
 * The file that is run: loads the program, and says so where even that cannot be done.
 *
 * Idea: it imports nothing by itself, so that a machine without file descriptors or memory to load the rest is told from a finding
 * (exit code 1), which is what Node ends with when an import fails.
 */
try {
  await (await import("./program.ts")).main();
} catch (error) {
  const { code, message, stack } = error as NodeJS.ErrnoException;
  const ofMachine = /^(EMFILE|ENFILE|ENOMEM|EACCES|EIO|ENOENT|ERR_MODULE_NOT_FOUND)$/.test(code ?? "");
  process.stderr.write(`dmalink: cannot be loaded: ${ofMachine ? message : stack}\n`);
  process.exitCode = ofMachine ? 3 : 70;
}

export {};
