/**
 * The one door for a newcomer: what `npm start`, `npm test` and every `npm run` that needs the packages or the build go through.
 *
 * Plain JavaScript that any Node can read, so that a Node that is too old is told so; installs what is missing (from
 * npm's cache where it can), builds what is stale, and then runs the command.
 */
import { spawnSync } from "node:child_process";
import { existsSync, readdirSync, readFileSync, statSync, utimesSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const NEEDED = [20, 19];
const [major, minor] = process.versions.node.split(".").map(Number);
if (major < NEEDED[0] || (major === NEEDED[0] && minor < NEEDED[1])) {
  console.error(
    `dmalink needs Node ${NEEDED.join(".")} or newer; this is Node ${process.versions.node} (${process.execPath}).\n` +
      "Install a newer one (Debian: apt install nodejs from backports, or https://nodejs.org) and try again.",
  );
  process.exit(3);
}

const top = dirname(dirname(fileURLToPath(import.meta.url)));
process.chdir(top);
const [command, ...rest] = process.argv.slice(2);
const windows = process.platform === "win32";

function run(program, args, options = {}) {
  const result = spawnSync(program, args, { stdio: "inherit", shell: windows, ...options });
  if (result.error) {
    console.error(`could not run ${program}: ${result.error.message}`);
    process.exit(3);
  }
  if (result.signal) process.exit(130);
  return result.status ?? 1;
}

/** Newest change below `path`, in milliseconds. */
function newest(path) {
  const stat = statSync(path);
  if (!stat.isDirectory()) return stat.mtimeMs;
  return Math.max(0, ...readdirSync(path).map((name) => newest(join(path, name))));
}

function install() {
  const mark = "node_modules/.dmalink-installed";
  const wanted = readFileSync("package-lock.json", "utf8");
  if (existsSync(mark) && readFileSync(mark, "utf8") === wanted) return;
  console.error("installing what dmalink needs (npm ci, once; under a minute) ...");
  const args = ["ci", "--prefer-offline", "--no-audit", "--no-fund", "--loglevel=error"];
  if (run("npm", args, { stdio: ["ignore", 2, 2] }) !== 0) {
    console.error(
      "npm ci failed: see above. Without a network it works only when npm's cache already holds these packages\n" +
        "(they are in it after one successful install on this machine).",
    );
    process.exit(3);
  }
  writeFileSync(mark, wanted);
}

function build() {
  const mark = "dist/.built";
  const stale = !existsSync(mark) || statSync(mark).mtimeMs < Math.max(newest("src"), newest("tsdown.config.ts"));
  if (!stale) return;
  console.error("building ...");
  // Quiet unless it fails: the bundler's remarks about Node versions are not the newcomer's business.
  const built = spawnSync(process.execPath, ["node_modules/tsdown/dist/run.mjs", "--logLevel", "error"], {
    encoding: "utf8",
  });
  if (built.status !== 0) {
    console.error(`${built.stdout ?? ""}${built.stderr ?? ""}\nthe build failed: see above`);
    process.exit(1);
  }
  const page = spawnSync(process.execPath, ["--import", "tsx", "tools/page.ts"], { encoding: "utf8" });
  if (page.status !== 0) {
    console.error(`${page.stdout ?? ""}${page.stderr ?? ""}\nthe build of the page failed: see above`);
    process.exit(1);
  }
  writeFileSync(mark, "");
  utimesSync(mark, new Date(), new Date());
}

const tsx = (file, args) => run(process.execPath, ["--import", "tsx", file, ...args]);

install();
if (command === "start") {
  build();
  // Files that a user names lie where the user is, not where npm runs its scripts.
  const asked = rest.length > 0;
  const args = asked ? rest : ["compare", "examples/traces/strict-mix7030.dat.gz"];
  const cwd = asked ? (process.env.INIT_CWD ?? top) : top;
  process.exit(run(process.execPath, [join(top, "dist/apps/cli/main.js"), ...args], { cwd }));
} else if (command === "sim") {
  build();
  process.exit(run(process.execPath, [join(top, "dist/apps/cli/main.js"), "sim", ...rest]));
} else if (command === "test") {
  build(); // some tests run the built program, as a user would
  process.exit(run(process.execPath, ["node_modules/vitest/vitest.mjs", "run", ...rest]));
} else if (command === "test:long") {
  // What can be as long as one likes: ten times as many cases as usual, and others each time.
  build();
  process.env.DMALINK_EFFORT ??= "10";
  process.env.DMALINK_SEED ??= "random";
  const options = rest.filter((word) => word.startsWith("-"));
  const named = rest.filter((word) => !word.startsWith("-"));
  const where =
    named.length > 0
      ? named
      : [
          ...[
            "test/fuzz",
            "test/iommufd",
            "test/simulation",
            "test/nvme",
            "test/migration",
            "test/rdma",
            "test/report/perfetto",
          ],
          ...[
            "test/golden/one-truth",
            "test/golden/compare",
            "test/golden/traces",
            "test/cli/machine",
            "test/cli/killed",
          ],
          ...["src/consumers", "src/iova"],
        ];
  process.exit(
    run(process.execPath, ["node_modules/vitest/vitest.mjs", "run", "--project", "promises", ...options, ...where]),
  );
} else if (command === "test:page") {
  // The page in a real browser: skipped with a reason where there is none.
  build();
  process.exit(
    run(process.execPath, ["node_modules/vitest/vitest.mjs", "run", "--config", "vitest.page.config.ts", ...rest]),
  );
} else if (command === "check") {
  build();
  process.exit(tsx("tools/check.ts", rest));
} else if (command === "bench:commands") {
  build(); // what is measured is the built program
  process.exit(tsx("tools/bench-commands.ts", rest));
} else if (command === "mutants") {
  build(); // some of the tests that are asked run the built program
  process.exit(tsx("tools/mutants/mutants.ts", rest));
} else if (command === "docs") {
  // The reference of the public interface, from the symbols' own comments, to docs/api.
  process.exit(run(process.execPath, ["node_modules/typedoc/bin/typedoc", ...rest]));
} else if (command === "bench:instructions") {
  process.exit(tsx("tools/bench-instructions.ts", rest));
} else if (command === "bench" || command === "golden" || command === "floors" || command === "fuzz") {
  process.exit(tsx(`tools/${command}.ts`, rest));
} else {
  console.error(`bootstrap: no command ${command}`);
  process.exit(2);
}
