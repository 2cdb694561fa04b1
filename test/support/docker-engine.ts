import { execFileSync, spawn, spawnSync, type ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { Client } from 'undici';
import { until } from './sandbox-commands.ts';

/** Why no engine can be started here, or null. */
export function engineObstacle(): string | null {
  if (process.platform !== 'linux' || process.geteuid?.() !== 0) return 'not root on Linux';
  if (spawnSync('dockerd', ['--version']).status !== 0) return 'no dockerd: apt-get install docker.io';
  return null;
}

/** A container engine of the tests' own, with one image; not that of the machine. */
export interface TestEngine {
  /** As DOCKER_HOST. */
  host: string;
  image: string;
  /** Asks the engine itself. */
  ask<T>(route: string): Promise<T>;
  /** SIGKILL to the engine alone: containers and their shims stay. */
  kill(): Promise<void>;
  /** After `kill`. */
  start(): Promise<void>;
  /** Ends everything that was started, by process id. */
  stop(): Promise<void>;
}

const IMAGE = 'longhaul-test:1';
const PROGRAMS =
  'bash dash perl setsid env echo cat ls cp mv rm mkdir mkfifo chmod ln dd head tail wc cut tr sort uniq od base64 sleep stat touch date du find grep sed ps printf sha256sum mktemp readlink dirname basename seq true false yes pwd id tee test kill';

/** `programs`: of this machine, which the image has beside what every sandbox needs. */
export async function startEngine(programs: string[] = []): Promise<TestEngine> {
  const folder = mkdtempSync(path.join(os.tmpdir(), 'longhaul-engine-'));
  const socket = path.join(folder, 's');
  const containers = await launchContainerd(folder);
  let engine = await launch(folder, socket);
  const ask = async <T>(route: string): Promise<T> => {
    const client = new Client('http://docker', { socketPath: socket });
    try {
      return (await (await client.request({ method: 'GET', path: route })).body.json()) as T;
    } finally {
      await client.close();
    }
  };
  const self: TestEngine = {
    host: `unix://${socket}`,
    image: IMAGE,
    ask,
    async kill() {
      if (engine.exitCode !== null || engine.signalCode !== null) return;
      const closed = once(engine, 'exit');
      engine.kill('SIGKILL');
      await closed;
    },
    async start() {
      engine = await launch(folder, socket);
    },
    async stop() {
      for (const each of [engine, containers]) {
        if (each.exitCode !== null || each.signalCode !== null) continue;
        const closed = once(each, 'exit');
        each.kill('SIGTERM');
        await closed;
      }
      await endRest(folder);
      rmSync(folder, { recursive: true, force: true });
    },
  };
  await importImage(folder, socket, programs);
  return self;
}

/** A process of its own, as on real machines: it survives the engine. */
async function launchContainerd(folder: string): Promise<ChildProcess> {
  const socket = path.join(folder, 'c');
  const config = path.join(folder, 'containerd.toml');
  const parts = [
    'version = 2',
    `root = "${path.join(folder, 'containerd')}"`,
    `state = "${path.join(folder, 'containers')}"`,
    'disabled_plugins = ["io.containerd.grpc.v1.cri"]',
    `[grpc]\n  address = "${socket}"`,
  ];
  writeFileSync(config, parts.join('\n'));
  const log = openSync(path.join(folder, 'containerd.log'), 'a');
  const child = spawn('containerd', ['--config', config], { stdio: ['ignore', log, log], env: CLEAN_ENV });
  closeSync(log);
  await until('containerd listens', () => Promise.resolve(existsSync(socket)), 20);
  return child;
}

const CLEAN_ENV = { PATH: '/usr/sbin:/usr/bin:/sbin:/bin' };

async function launch(folder: string, socket: string): Promise<ChildProcess> {
  const log = openSync(path.join(folder, 'log'), 'a');
  const child = spawn(
    'dockerd',
    [
      ['--data-root', path.join(folder, 'data')],
      ['--exec-root', path.join(folder, 'exec')],
      ['--pidfile', path.join(folder, 'pid')],
      ['-H', `unix://${socket}`],
      ['--containerd', path.join(folder, 'c')],
      ['--iptables=false', '--ip6tables=false', '--bridge=none'],
    ].flat(),
    { stdio: ['ignore', log, log], env: { ...CLEAN_ENV, HOME: folder } },
  );
  closeSync(log);
  const told = (): string => readFileSync(path.join(folder, 'log'), 'utf8').slice(-2_000);
  await until(
    'the engine answers',
    async () => {
      if (child.exitCode !== null) throw new Error(`the engine ended: ${told()}`);
      if (!existsSync(socket)) return false;
      const client = new Client('http://docker', { socketPath: socket });
      try {
        const { statusCode, body } = await client.request({ method: 'GET', path: '/_ping' });
        await body.dump();
        return statusCode === 200;
      } catch {
        return false;
      } finally {
        await client.close();
      }
    },
    50,
  );
  return child;
}

/** The smallest file system the tests need, of this machine's own files. */
async function importImage(folder: string, socket: string, more: string[]): Promise<void> {
  const root = path.join(folder, 'root');
  for (const each of ['usr/bin', 'usr/lib', 'usr/lib64', 'etc/ssl/certs', 'tmp', 'proc', 'sys', 'dev', 'var', 'run']) {
    mkdirSync(path.join(root, each), { recursive: true });
  }
  for (const [name, target] of Object.entries({
    bin: 'usr/bin',
    sbin: 'usr/bin',
    lib: 'usr/lib',
    lib64: 'usr/lib64',
  })) {
    symlinkSync(target, path.join(root, name));
  }
  const copy = (file: string, name = file): void => {
    const target = path.join(root, name.replace(/^\/(usr\/)?/, 'usr/'));
    mkdirSync(path.dirname(target), { recursive: true });
    cpSync(file, target, { dereference: true });
  };
  const programs = [...PROGRAMS.split(' '), ...more].map((each) => `/usr/bin/${each}`);
  const libraries = spawnSync('ldd', [...programs, process.execPath], { encoding: 'utf8' }).stdout.matchAll(
    /(\/\S+) \(0x/g,
  );
  for (const file of [...programs, ...new Set([...libraries].map((match) => match[1] ?? ''))]) copy(file);
  copy(process.execPath, '/usr/bin/node');
  const perl = readdirSync('/usr/lib').map((each) => `/usr/lib/${each}/perl-base`);
  for (const from of perl.filter((each) => existsSync(each))) {
    cpSync(from, path.join(root, from), { recursive: true, dereference: true });
  }
  symlinkSync('dash', path.join(root, 'usr/bin/sh'));
  writeFileSync(path.join(root, 'etc/passwd'), 'root:x:0:0:root:/root:/bin/sh\n');
  const archive = execFileSync('tar', ['-C', root, '-c', '.'], { maxBuffer: 512 * 1024 * 1024 });
  const [repo, tag] = IMAGE.split(':');
  const client = new Client('http://docker', { socketPath: socket });
  const query = new URLSearchParams({ fromSrc: '-', repo: repo ?? '', tag: tag ?? '' }).toString();
  const answer = await client.request({ method: 'POST', path: `/images/create?${query}`, body: archive });
  const text = await answer.body.text();
  await client.close();
  rmSync(root, { recursive: true });
  if (!text.includes('sha256:')) throw new Error(`the image was not imported: ${text}`);
}

const read = (file: string): string => {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return '';
  }
};

/** What a killed engine left: shims name its folder in their arguments, what they ran is in the containers' groups. */
async function endRest(folder: string): Promise<void> {
  const containers = readdirSync(path.join(folder, 'data', 'containers'));
  const rest = (): number[] =>
    readdirSync('/proc')
      .filter((pid) => /^\d+$/.test(pid) && Number(pid) !== process.pid)
      .filter((pid) => {
        if (read(`/proc/${pid}/cmdline`).includes(folder)) return true;
        const groups = read(`/proc/${pid}/cgroup`);
        return containers.some((each) => groups.includes(each));
      })
      .map(Number);
  await until(
    'nothing of the engine runs',
    () => {
      for (const pid of rest()) {
        try {
          process.kill(pid, 'SIGKILL');
        } catch {
          // It ended meanwhile.
        }
      }
      return Promise.resolve(rest().length === 0);
    },
    50,
  );
  for (const line of readFileSync('/proc/mounts', 'utf8').split('\n').toReversed()) {
    const mounted = line.split(' ')[1] ?? '';
    if (mounted.startsWith(folder)) spawnSync('umount', ['-l', mounted]);
  }
}
