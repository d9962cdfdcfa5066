/** What a user installs and is told to run: exact versions, no install scripts where none is needed, and only what is ours. */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, test } from "vitest";

const top = join(import.meta.dirname, "../..");
const json = (path: string) => JSON.parse(readFileSync(join(top, path), "utf8"));
const { dependencies, optionalDependencies, scripts, files } = json("package.json") as {
  dependencies: Record<string, string>;
  optionalDependencies: Record<string, string>;
  scripts: Record<string, string>;
  files: string[];
};
const INSTALLING = ["preinstall", "install", "postinstall", "prepare"];

test("what runs at a user's is named with an exact version, and is what the lock file has", () => {
  const { packages } = json("package-lock.json") as {
    packages: Record<string, { version: string; integrity?: string }>;
  };
  for (const [name, version] of Object.entries({ ...dependencies, ...optionalDependencies })) {
    expect(version, name).toMatch(/^\d+\.\d+\.\d+(-[\w.]+)?$/);
    expect(packages[`node_modules/${name}`]?.version).toBe(version);
  }
  for (const [path, { integrity }] of Object.entries(packages))
    if (path !== "") expect(integrity, path).toMatch(/^sha512-/);
});

test("what is always installed has no install script, however deep, nor has the package", () => {
  expect(Object.keys(scripts).filter((name) => INSTALLING.includes(name))).toEqual([]);
  const seen = new Set<string>();
  const look = (name: string): void => {
    if (seen.has(name)) return;
    seen.add(name);
    const found = json(`node_modules/${name}/package.json`) as typeof dependencies & {
      scripts?: Record<string, string>;
      dependencies?: Record<string, string>;
    };
    for (const script of INSTALLING.slice(0, 3)) expect(found.scripts?.[script], `${name}: ${script}`).toBeUndefined();
    for (const below of Object.keys(found.dependencies ?? {})) look(below);
  };
  for (const name of Object.keys(dependencies)) look(name);
  expect([...seen].sort()).toEqual(["fzstd", "hyparquet", "hyparquet-writer"]);
});

test("no document runs a package of our name from the registry, and what is trusted is said in the package", () => {
  const documents = (folder: string): string[] =>
    readdirSync(join(top, folder), { withFileTypes: true }).flatMap((entry) =>
      entry.isDirectory()
        ? documents(join(folder, entry.name))
        : /\.(md|ts|sh)$/.test(entry.name)
          ? [join(folder, entry.name)]
          : [],
    );
  const all = [
    "README.md",
    "SECURITY.md",
    "CONTRIBUTING.md",
    ...documents("docs"),
    ...documents("examples"),
    ...documents("src"),
  ];
  const running = all.filter(
    (path) =>
      path !== join("docs", "decisions", "0018-supply.md") &&
      /npx (-y |--yes )?dmalink/.test(readFileSync(join(top, path), "utf8")),
  );
  expect(running).toEqual([]);
  expect(files).toContain("SECURITY.md");
  expect(existsSync(join(top, "SECURITY.md"))).toBe(true);
});
