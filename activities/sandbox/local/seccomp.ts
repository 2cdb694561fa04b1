import type { HeldLimits } from './groups.ts';
import type { SyscallTable } from './kernel.ts';

const LOAD_WORD = 0x20;
const JUMP_EQUAL = 0x15;
const JUMP_ANY_BIT = 0x45;
const RETURN = 0x06;

const ALLOW = 0x7fff0000;
const KILL_PROCESS = 0x80000000;
const ERRNO = 0x00050000;
const EPERM = 1;
const ENOSYS = 38;
const EAFNOSUPPORT = 97;

/** Offsets into `struct seccomp_data`; arguments are little-endian 64-bit words on both architectures. */
const NUMBER_OFFSET = 0;
const ARCH_OFFSET = 4;
const ARGUMENT_OFFSET = 16;

/** NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET. */
const CLONE_NEW_ANY = 0x7e020000;
/** UNIX, INET, INET6, NETLINK. AF_VSOCK is not confined by a network namespace, so a list of families is needed. */
const SOCKET_FAMILIES = [1, 2, 10, 16];
/** TIOCSTI and TIOCLINUX type into the terminal of whoever started us. */
const TERMINAL_INJECTION = [0x5412, 0x541c];

type Instruction = [code: number, jumpTrue: number, jumpFalse: number, value: number];

const load = (offset: number): Instruction => [LOAD_WORD, 0, 0, offset];
const ret = (value: number): Instruction => [RETURN, 0, 0, value >>> 0];

/** When the number (already loaded) is `number`, run `body`, which must return on every path. */
function onSyscall(number: number, body: Instruction[]): Instruction[] {
  return [[JUMP_EQUAL, 0, body.length, number], ...body];
}

function argumentIn(argument: number, values: number[], whenIn: number, otherwise: number): Instruction[] {
  return [
    load(ARGUMENT_OFFSET + 8 * argument),
    ...values.map((value, index): Instruction => [JUMP_EQUAL, values.length - index, 0, value]),
    ret(otherwise),
    ret(whenIn),
  ];
}

/** The classic BPF program: `struct sock_filter[]`. */
export function seccompFilter(table: SyscallTable, held: HeldLimits): Buffer {
  const familyCheck = argumentIn(0, SOCKET_FAMILIES, ALLOW, ERRNO | EAFNOSUPPORT);
  const denied = Object.values(table.denied);
  if (!held.memory) denied.push(table.deniedWithout.memory);
  if (!held.cpu) denied.push(table.deniedWithout.cpu);
  const program: Instruction[] = [
    load(ARCH_OFFSET),
    [JUMP_EQUAL, 1, 0, table.auditArch],
    ret(KILL_PROCESS),
    load(NUMBER_OFFSET),
    ...(table.alternateAbiBit === null
      ? []
      : ([[JUMP_ANY_BIT, 0, 1, table.alternateAbiBit], ret(ERRNO | ENOSYS)] satisfies Instruction[])),
    // glibc falls back to clone, whose flags a filter can read; clone3 hides them behind a pointer.
    ...onSyscall(table.clone3, [ret(ERRNO | ENOSYS)]),
    ...onSyscall(table.clone, [
      load(ARGUMENT_OFFSET),
      [JUMP_ANY_BIT, 0, 1, CLONE_NEW_ANY],
      ret(ERRNO | EPERM),
      ret(ALLOW),
    ]),
    ...onSyscall(table.socket, familyCheck),
    ...onSyscall(table.socketpair, familyCheck),
    ...onSyscall(table.ioctl, argumentIn(1, TERMINAL_INJECTION, ERRNO | EPERM, ALLOW)),
    ...denied.map((number, index): Instruction => [JUMP_EQUAL, denied.length - index, 0, number]),
    ret(ALLOW),
    ret(ERRNO | EPERM),
  ];
  const bytes = Buffer.alloc(program.length * 8);
  for (const [index, [code, jumpTrue, jumpFalse, value]] of program.entries()) {
    bytes.writeUInt16LE(code, index * 8);
    bytes.writeUInt8(jumpTrue, index * 8 + 2);
    bytes.writeUInt8(jumpFalse, index * 8 + 3);
    bytes.writeUInt32LE(value >>> 0, index * 8 + 4);
  }
  return bytes;
}
