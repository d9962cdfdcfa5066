/** What nobody should have to look for: each check answers with one complaint a breach, `what: why`. */
import { existsSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import ts from "typescript";
import { type Code, type CodeFile, isLibrary } from "./code.ts";

/** A breach. `key` is what a debt names. */
export interface Complaint {
  readonly check: string;
  readonly key: string;
  readonly message: string;
}

export interface Check {
  readonly name: string;
  run(code: Code): Complaint[];
}

/** Longer functions, and longer lists of parameters, need a reason. */
const MOST_LINES = 70;
const MOST_PARAMETERS = 6;

/** Files that import each other in a circle, by value or by type. */
const cycles: Check = {
  name: "cycle",
  run(code) {
    const graph = new Map(code.library.map((file) => [file.name, code.imports(file)]));
    return circles(graph).map((circle) => ({
      check: "cycle",
      key: circle[0]!,
      message: `${circle.length} files import each other in a circle: ${circle.join(", ")}`,
    }));
  },
};

/** Strongly connected parts of more than one node (Tarjan), each in order of names. */
export function circles(graph: ReadonlyMap<string, readonly string[]>): string[][] {
  const found: string[][] = [];
  const index = new Map<string, number>();
  const low = new Map<string, number>();
  const stack: string[] = [];
  const visit = (node: string): void => {
    index.set(node, index.size);
    low.set(node, index.get(node)!);
    stack.push(node);
    for (const next of graph.get(node) ?? []) {
      if (!graph.has(next)) continue;
      if (!index.has(next)) {
        visit(next);
        low.set(node, Math.min(low.get(node)!, low.get(next)!));
      } else if (stack.includes(next)) low.set(node, Math.min(low.get(node)!, index.get(next)!));
    }
    if (low.get(node) !== index.get(node)) return;
    const part = stack.splice(stack.indexOf(node));
    if (part.length > 1) found.push(part.sort());
  };
  for (const node of graph.keys()) if (!index.has(node)) visit(node);
  return found;
}

/** Exports that no other file names, or only tests do. What an entry gives to users is alive. */
const deadExports: Check = {
  name: "dead-export",
  run(code) {
    const isPublic = new Set(entries(code).flatMap((entry) => [...code.publicNames(entry).values()]));
    return code.library.flatMap((file) =>
      basename(file.name) === "index.ts"
        ? []
        : code.ownExports(file).flatMap(({ name, symbol }) => {
            if (isPublic.has(symbol)) return [];
            const users = [...code.users(symbol)].filter((user) => user !== file.name);
            if (users.some((user) => isLibrary(user) && !user.startsWith("test/"))) return [];
            const why = users.length === 0 ? "no other file names it" : `only ${users[0]} names it`;
            return [{ check: "dead-export", key: `${file.name} ${name}`, message: `${name} is exported, and ${why}` }];
          }),
    );
  },
};

/** One name for two declarations, over all entries. */
const publicTwice: Check = {
  name: "public-twice",
  run(code) {
    const seen = new Map<string, { entry: string; symbol: ts.Symbol }>();
    const complaints: Complaint[] = [];
    for (const entry of entries(code))
      for (const [name, symbol] of code.publicNames(entry)) {
        const other = seen.get(name);
        if (other === undefined) seen.set(name, { entry, symbol });
        else if (other.symbol !== symbol)
          complaints.push({
            check: "public-twice",
            key: name,
            message: `${name} is one thing in ${other.entry} and another in ${entry}`,
          });
      }
    return complaints;
  },
};

/** Public symbols that an editor shows nothing for. */
const undocumented: Check = {
  name: "undocumented",
  run(code) {
    const complaints: Complaint[] = [];
    const seen = new Set<ts.Symbol>();
    for (const entry of entries(code))
      for (const [name, symbol] of code.publicNames(entry)) {
        if (seen.has(symbol)) continue;
        seen.add(symbol);
        if (symbol.getDocumentationComment(code.checker).length > 0) continue;
        const [declaration] = symbol.declarations ?? [];
        if (declaration === undefined) continue;
        complaints.push({
          check: "undocumented",
          key: name,
          message: `${name} (${code.placeOf(declaration)}) is public in ${entry}, and has no comment of its own`,
        });
      }
    return complaints;
  },
};

/** Functions that are too long, or take too much. */
const large: Check = {
  name: "large-function",
  run(code) {
    const complaints: Complaint[] = [];
    for (const file of code.library) {
      const visit = (node: ts.Node): void => {
        if (ts.isFunctionLike(node) && "body" in node && node.body) complaints.push(...tooLarge(code, file, node));
        ts.forEachChild(node, visit);
      };
      visit(file.source);
    }
    return complaints;
  },
};

function tooLarge(
  code: Code,
  file: CodeFile,
  node: ts.SignatureDeclaration & { body?: ts.Node | undefined },
): Complaint[] {
  const { source } = file;
  const name = node.name && "text" in node.name ? node.name.text : nameAbove(node);
  const lineAt = (position: number): number => source.getLineAndCharacterOfPosition(position).line;
  const lines = lineAt(node.getEnd()) - lineAt(node.getStart()) + 1;
  const complaint = (message: string): Complaint => ({ check: "large-function", key: `${file.name} ${name}`, message });
  const found: Complaint[] = [];
  if (lines > MOST_LINES)
    found.push(complaint(`${name} (${code.placeOf(node)}) has ${lines} lines; ${MOST_LINES} need a reason`));
  if (node.parameters.length > MOST_PARAMETERS)
    found.push(
      complaint(
        `${name} (${code.placeOf(node)}) has ${node.parameters.length} parameters; ${MOST_PARAMETERS} are enough`,
      ),
    );
  return found;
}

/** Of a function without a name of its own: that of what it is given to. */
function nameAbove(node: ts.Node): string {
  for (let at: ts.Node | undefined = node.parent; at; at = at.parent)
    if ((ts.isVariableDeclaration(at) || ts.isPropertyAssignment(at) || ts.isClassDeclaration(at)) && at.name)
      return ts.isConstructorDeclaration(node) ? `${at.name.getText()}.constructor` : at.name.getText();
  return "a function without a name";
}

/** Comments that name a file which is not there. */
const missingFiles: Check = {
  name: "missing-file",
  run(code) {
    const named = /(?<![\w./-])((?:[\w.-]+\/)*[\w.-]+\.(?:test\.ts|bench\.ts|ts|md|sh|mjs))(?![\w/-])/g;
    const all = new Set(code.files.map(({ name }) => name));
    const names = new Set([...all].map((name) => basename(name)));
    return code.library.flatMap((file) =>
      commentsOf(file.source).flatMap((comment) =>
        [...comment.matchAll(named)].flatMap(([, path]) => {
          const isThere =
            [...all].some((name) => name === path || name.endsWith(`/${path}`)) ||
            existsSync(join(code.top, path!)) ||
            existsSync(join(code.top, dirname(file.name), path!)) ||
            (!path!.includes("/") && (names.has(path!) || existsSync(join(code.top, "docs", path!))));
          if (isThere || /^(?:Node|index)\./.test(path!)) return [];
          return [
            {
              check: "missing-file",
              key: `${file.name} ${path}`,
              message: `${file.name} names ${path}, which is not there`,
            },
          ];
        }),
      ),
    );
  },
};

function commentsOf({ text }: ts.SourceFile): string[] {
  return text.match(/\/\*[\s\S]*?\*\/|(?<![:"'`])\/\/[^\n]*/g) ?? [];
}

/** The library needs no test to be built. */
const testsInside: Check = {
  name: "test-inside",
  run(code) {
    return code.library.flatMap((file) =>
      code
        .imports(file)
        .filter((target) => !target.startsWith("src/") || !isLibrary(target))
        .map((target) => ({ check: "test-inside", key: file.name, message: `${file.name} imports ${target}` })),
    );
  },
};

export const CHECKS: readonly Check[] = [
  cycles,
  deadExports,
  publicTwice,
  undocumented,
  large,
  missingFiles,
  testsInside,
];

/** The files that users import from, as the package's build has them. */
export function entries(code: Code): string[] {
  const build = ts.sys.readFile(join(code.top, "tsdown.config.ts")) ?? "";
  const named = [...build.matchAll(/"(src\/(?:public\/[\w-]+|index)\.ts)"/g)].map(([, path]) => path!);
  return named.filter((path) => code.file(path) !== undefined);
}
