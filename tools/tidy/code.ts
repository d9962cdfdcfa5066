/** The code as TypeScript's own parser sees it, for the checks of tidy: files, their exports, who uses what. */
import { readdirSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import ts from "typescript";

export const TOP: string = resolve(dirname(fileURLToPath(import.meta.url)), "../..");

/** A file of the program, named from the top of the repository. */
export interface CodeFile {
  readonly name: string;
  readonly source: ts.SourceFile;
}

/** What is exported by one file, as declared there. */
export interface Export {
  readonly file: string;
  readonly name: string;
  readonly symbol: ts.Symbol;
  readonly isType: boolean;
}

const FOLDERS = ["src", "test", "tools", "bench", "examples"];

function typescriptFiles(folder: string): string[] {
  return readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
    const path = join(folder, entry.name);
    if (entry.isDirectory()) return entry.name === "node_modules" ? [] : typescriptFiles(path);
    return /\.tsx?$/.test(entry.name) ? [path] : [];
  });
}

/** Everything that is compiled, and what each part of it names. */
export class Code {
  /** The folder that everything is named from. */
  readonly top: string;
  readonly files: readonly CodeFile[];
  readonly checker: ts.TypeChecker;
  /** Files by whom a declared symbol is named: imports and re-exports, `export *` apart. */
  readonly #users = new Map<ts.Symbol, Set<string>>();

  constructor(top: string = TOP, folders: readonly string[] = FOLDERS) {
    this.top = top;
    const { config } = ts.readConfigFile(join(top, "tsconfig.json"), ts.sys.readFile);
    const { options } = ts.parseJsonConfigFileContent(config, ts.sys, top);
    const program = ts.createProgram(
      folders.flatMap((folder) => typescriptFiles(join(top, folder))),
      options,
    );
    this.checker = program.getTypeChecker();
    this.files = program
      .getSourceFiles()
      .filter(({ fileName }) => !fileName.includes("/node_modules/") && fileName.startsWith(top))
      .map((source) => ({ name: relative(top, source.fileName), source }));
    for (const file of this.files) this.#readUses(file);
  }

  /** The library itself: no tests, no benchmarks. */
  get library(): readonly CodeFile[] {
    return this.files.filter(({ name }) => name.startsWith("src/") && isLibrary(name));
  }

  file(name: string): CodeFile | undefined {
    return this.files.find((each) => each.name === name);
  }

  /** What a file exports by itself; what it passes on from others is theirs. */
  ownExports({ name, source }: CodeFile): Export[] {
    const module = this.checker.getSymbolAtLocation(source);
    if (module === undefined) return [];
    return this.checker
      .getExportsOfModule(module)
      .filter(({ declarations }) => declarations?.some((each) => each.getSourceFile() === source && !isPassedOn(each)))
      .map((symbol) => ({
        file: name,
        name: symbol.name,
        symbol,
        isType: (symbol.flags & ts.SymbolFlags.Value) === 0,
      }));
  }

  /** Everything that a user gets from an entry, by its public name: the symbol that it is declared as. */
  publicNames(entry: string): Map<string, ts.Symbol> {
    const module = this.checker.getSymbolAtLocation(this.file(entry)!.source);
    const names = new Map<string, ts.Symbol>();
    if (module === undefined) return names;
    for (const symbol of this.checker.getExportsOfModule(module)) names.set(symbol.name, this.declared(symbol));
    return names;
  }

  /** The symbol behind imports and re-exports. */
  declared(symbol: ts.Symbol): ts.Symbol {
    return symbol.flags & ts.SymbolFlags.Alias ? this.checker.getAliasedSymbol(symbol) : symbol;
  }

  /** Other files that name `symbol`. */
  users(symbol: ts.Symbol): ReadonlySet<string> {
    return this.#users.get(symbol) ?? new Set();
  }

  /** Where a declaration stands, for messages. */
  placeOf(node: ts.Node): string {
    const source = node.getSourceFile();
    const { line } = source.getLineAndCharacterOfPosition(node.getStart());
    return `${relative(this.top, source.fileName)}:${line + 1}`;
  }

  /** Files that a file imports from, or passes on from. */
  imports({ name, source }: CodeFile): string[] {
    return ts
      .preProcessFile(source.text, true, true)
      .importedFiles.flatMap(({ fileName }) => (fileName.startsWith(".") ? [join(dirname(name), fileName)] : []));
  }

  #readUses({ name, source }: CodeFile): void {
    const isFace = /(?:^|\/)index\.ts$/.test(name); // what a face passes on, somebody has to take
    const add = (node: ts.Node): void => {
      const symbol = this.checker.getSymbolAtLocation(node);
      if (symbol === undefined) return;
      const declared = this.declared(symbol);
      const users = this.#users.get(declared) ?? new Set();
      this.#users.set(declared, users.add(name));
    };
    const visit = (node: ts.Node): void => {
      if (ts.isImportSpecifier(node) || (ts.isExportSpecifier(node) && !isFace)) add(node.name);
      if (ts.isImportTypeNode(node) && node.qualifier) add(node.qualifier);
      if (ts.isImportClause(node) && node.namedBindings && ts.isNamespaceImport(node.namedBindings)) {
        const module = this.checker.getSymbolAtLocation(node.parent.moduleSpecifier);
        for (const symbol of module ? this.checker.getExportsOfModule(module) : []) {
          const declared = this.declared(symbol);
          this.#users.set(declared, (this.#users.get(declared) ?? new Set()).add(name));
        }
      }
      if (ts.isCallExpression(node) && node.expression.kind === ts.SyntaxKind.ImportKeyword) {
        const [specifier] = node.arguments;
        const module = specifier && this.checker.getSymbolAtLocation(specifier);
        for (const symbol of module ? this.checker.getExportsOfModule(module) : []) {
          const declared = this.declared(symbol);
          this.#users.set(declared, (this.#users.get(declared) ?? new Set()).add(name));
        }
      }
      ts.forEachChild(node, visit);
    };
    visit(source);
  }
}

const isPassedOn = (node: ts.Declaration): boolean => ts.isExportSpecifier(node) || ts.isImportSpecifier(node);

/** Neither a test nor a benchmark. */
export const isLibrary = (name: string): boolean => !/\.(test|bench)\.tsx?$/.test(name);
