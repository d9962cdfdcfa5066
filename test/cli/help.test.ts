/** Help, the manual page and completion: made of the commands' table, and judged by the programs that read them. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { flagOf } from "../../src/apps/cli/command.ts";
import { COMMANDS } from "../../src/apps/cli/commands/index.ts";
import { PROGRAM } from "../../src/apps/cli/program.ts";
import { dmalink } from "./in-process.ts";

const has = (program: string): boolean => spawnSync(program, ["--version"]).status === 0;
let folder = "";
beforeAll(() => {
  folder = mkdtempSync(join(tmpdir(), "dmalink-help-"));
});
afterAll(() => rmSync(folder, { recursive: true }));

describe("the table of commands", () => {
  test("has each name once, and no option is called what all have", () => {
    const names = COMMANDS.map(({ name }) => name);
    expect(new Set(names).size).toBe(names.length);
    for (const { options } of COMMANDS) expect(Object.keys(options)).not.toContain("help");
  });

  test("asks for optional arguments last, and for many only at the end", () => {
    for (const { arguments: words } of COMMANDS)
      for (const [i, { optional, many }] of words.entries()) {
        if (many) expect(i).toBe(words.length - 1);
        if (i > 0 && words[i - 1]!.optional) expect(optional).toBe(true);
      }
  });

  test("has examples that begin with the program, and use options that there are", () => {
    for (const { name, options, examples } of COMMANDS) {
      expect(examples.length).toBeGreaterThan(0);
      for (const example of examples) {
        expect(example).toContain(`dmalink ${name}`);
        const [own] = example.split(" -- ");
        for (const [flag] of own!.split("|")[0]!.matchAll(/--[a-z-]+/g))
          expect([...Object.keys(options).map(flagOf)], example).toContain(flag);
      }
    }
  });
});

describe("the version", () => {
  test("is the package's, and --version and the command say the same line", async () => {
    const { version } = JSON.parse(readFileSync(join(import.meta.dirname, "../../package.json"), "utf8"));
    expect(PROGRAM.version).toBe(version);
    const said = await dmalink("version");
    expect([said.code, said.out]).toEqual([
      0,
      `dmalink/test ${process.platform}-${process.arch} node-${process.version}\n`,
    ]);
    for (const option of ["--version", "-v", "-V"]) expect(await dmalink(option), option).toEqual(said);
    expect(JSON.parse((await dmalink("version", "--json")).out)).toMatchObject({
      version: "test",
      node: process.version,
    });
  });
});

describe("help", () => {
  test("of the program lists every command; of each, every argument and option; lines fit 80 columns", async () => {
    const all = await dmalink("help");
    expect(all).toEqual(await dmalink("--help"));
    for (const { name, summary } of COMMANDS) expect(all.out.replace(/\s+/g, " ")).toContain(`${name} ${summary}`);
    for (const { name, arguments: words, options, examples } of COMMANDS) {
      const { code, out } = await dmalink("help", name);
      expect(code).toBe(0);
      expect(out).toBe((await dmalink(name, "--help")).out);
      for (const { name: word } of words) expect(out).toContain(word);
      for (const key of Object.keys(options)) expect(out).toMatch(new RegExp(`${flagOf(key)}\\b`));
      for (const line of [...out.split("\n"), ...all.out.split("\n")])
        if (!examples.includes(line.trim())) expect(line.length, line).toBeLessThanOrEqual(80);
    }
  });

  test("says what was meant", async () => {
    expect(await dmalink("chek", "x")).toMatchObject({
      code: 2,
      out: "",
      err: 'dmalink: no command "chek"; did you mean check? dmalink --help shows how it is used\n',
    });
    expect((await dmalink("help", "chek")).err).toContain("did you mean check?");
    expect((await dmalink("stats", "x", "--jsn")).err).toContain("did you mean --json?");
    expect((await dmalink("frobnicate")).err).not.toContain("did you mean");
  });
});

describe("the manual page", () => {
  test.skipIf(!has("groff"))("is read by groff without a word of complaint, and shows what was written", async () => {
    const { out } = await dmalink("help", "--man");
    const { status, stdout, stderr } = spawnSync("groff", ["-man", "-Tascii", "-P-cbou", "-ww", "-rLL=78n"], {
      input: out,
      encoding: "utf8",
    });
    expect([status, stderr]).toEqual([0, ""]);
    for (const { name, options } of COMMANDS) {
      expect(stdout).toContain(`dmalink ${name}`);
      for (const key of Object.keys(options)) expect(stdout).toContain(flagOf(key));
    }
    expect(stdout).toContain("trace-cmd report trace.dat | dmalink stats -");
    expect(stdout).not.toContain("\\");
  });
});

describe("completion", () => {
  /** What bash offers for the last of `words`. */
  function offered(...words: string[]): string[] {
    const script = `source ${join(folder, "dmalink.bash")}; COMP_WORDS=(${words.map((word) => `'${word}'`).join(" ")}); COMP_CWORD=${words.length - 1}; _dmalink; printf '%s\\n' "\${COMPREPLY[@]}"`;
    const { status, stdout, stderr } = spawnSync("bash", ["-c", script], { encoding: "utf8", cwd: folder });
    expect([status, stderr]).toEqual([0, ""]);
    return stdout.split("\n").filter((word) => word !== "");
  }
  beforeAll(async () => {
    writeFileSync(join(folder, "dmalink.bash"), (await dmalink("completion", "bash")).out);
    writeFileSync(join(folder, "trace one.dat"), "");
  });

  test.skipIf(!has("bash"))("in bash: commands, their options, words of a list, and files", () => {
    expect(offered("dmalink", "co")).toEqual(["compare", "completion"]);
    expect(offered("dmalink", "check", "--s")).toEqual(["--snapshot", "--sarif"]);
    expect(offered("dmalink", "check", "--rule", "double")).toEqual(["double-unmap"]);
    expect(offered("dmalink", "compare", "--iommu", "=", "ri")).toEqual(["riscv-sv48"]);
    expect(offered("dmalink", "--json", "completion", "")).toEqual(["bash", "zsh", "fish"]);
    expect(offered("dmalink", "stats", "tra").join(" ")).toBe("trace one.dat");
    expect(offered("dmalink", "doctor", "")).toEqual([]);
    expect(offered("dmalink", "record", "-o", "tra").join(" ")).toBe("trace one.dat");
  });

  test.each(["bash", "zsh", "fish"])("%s reads the script", async (shell) => {
    const { out } = await dmalink("completion", shell);
    for (const { name, options } of COMMANDS) {
      expect(out).toContain(name);
      for (const key of Object.keys(options)) expect(out).toContain(flagOf(key).slice(shell === "fish" ? 2 : 0));
    }
    if (!has(shell)) return; // what it holds is known at least
    const script = join(folder, `script.${shell}`);
    writeFileSync(script, out);
    const { status, stderr } = spawnSync(shell, ["-n", script], { encoding: "utf8" });
    expect([status, stderr]).toEqual([0, ""]);
  });

  test("for another shell there is none, and it is said which there are", async () =>
    expect(await dmalink("completion", "tcsh")).toMatchObject({ code: 2, err: /tcsh: one of bash, zsh, fish/ }));
});
