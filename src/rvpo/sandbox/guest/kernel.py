"""Filter the system calls of the program's process: a seccomp filter, built here without a library.

It refuses new processes and other programs, signals that cannot be caught, the memory of other processes, memory that
no limit counts, and the parts of the kernel that programs of benchmarks never need. Threads are permitted.
"""

from __future__ import annotations

import ctypes
import errno
import os

_EM = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
# name: (x86_64, aarch64); None if an architecture does not have the call.
_REFUSED: dict[str, tuple[int | None, int | None]] = {
    "fork": (57, None), "vfork": (58, None), "execve": (59, 221), "execveat": (322, 281),
    "ptrace": (101, 117), "process_vm_readv": (310, 270), "process_vm_writev": (311, 271),
    "process_madvise": (440, 440), "kcmp": (312, 272), "pidfd_open": (434, 434), "pidfd_getfd": (438, 438),
    "pidfd_send_signal": (424, 424), "rt_sigqueueinfo": (129, 138), "rt_tgsigqueueinfo": (297, 240),
    "unshare": (272, 97), "setns": (308, 268), "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41),
    "chroot": (161, 51), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "mount_setattr": (442, 442),
    "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219),
    "bpf": (321, 280), "perf_event_open": (298, 241), "userfaultfd": (323, 282),
    "io_uring_setup": (425, 425), "io_uring_enter": (426, 426), "io_uring_register": (427, 427),
    "memfd_create": (319, 279), "memfd_secret": (447, 447), "shmget": (29, 194), "shmat": (30, 196),
    "msgget": (68, 186), "semget": (64, 190), "mq_open": (240, 180),
    "setpriority": (141, 140), "sched_setparam": (142, 118), "sched_setscheduler": (144, 119),
    "sched_setaffinity": (203, 122), "sched_setattr": (314, 274), "ioprio_set": (251, 30),
    "migrate_pages": (256, 238), "move_pages": (279, 239), "personality": (135, 92),
    "init_module": (175, 105), "finit_module": (313, 273), "kexec_load": (246, 104), "syslog": (103, 116),
    "quotactl": (179, 60), "acct": (163, 89), "swapon": (167, 224), "name_to_handle_at": (303, 264),
    "open_by_handle_at": (304, 265), "lookup_dcookie": (212, 18), "nfsservctl": (180, 42),
}  # fmt: skip
_CLONE, _CLONE3, _PRLIMIT, _SOCKET = (56, 220), (435, 435), (302, 261), (41, 198)
_FAMILIES = (1, 2, 10)  # families of sockets: UNIX, INET, INET6
_KILLS = {"kill": ((62, 129), 1), "tkill": ((200, 130), 1), "tgkill": ((234, 131), 2)}
_CLONE_THREAD = 0x10000
_LOAD, _JEQ, _JGE, _JSET, _RET = 0x20, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERRNO = 0x7FFF0000, 0x80000000, 0x00050000


class _Instruction(ctypes.Structure):
    _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte), ("k", ctypes.c_uint)]


class _Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.POINTER(_Instruction))]


def instructions(machine: str, kills: bool = False) -> list[tuple[int, int, int, int]]:
    """Return the filter as tuples (code, jump if true, jump if false, value). ``kills`` permits sending SIGKILL."""
    column = list(_EM).index(machine)
    refuse, no_call = (_RET, 0, 0, _ERRNO | errno.EPERM), (_RET, 0, 0, _ERRNO | errno.ENOSYS)
    load_number, allow = (_LOAD, 0, 0, 0), (_RET, 0, 0, _ALLOW)
    code = [(_LOAD, 0, 0, 4), (_JEQ, 1, 0, _EM[machine]), (_RET, 0, 0, _KILL), load_number]
    if machine == "x86_64":  # its x32 calls have separate numbers
        code += [(_JGE, 0, 1, 0x40000000), refuse]
    for numbers in _REFUSED.values():
        number = numbers[column]
        if number is not None:
            code += [(_JEQ, 0, 1, number), refuse]
    code += [(_JEQ, 0, 1, _CLONE3[column]), no_call]  # its flags are in memory; C libraries fall back to clone
    code += [(_JEQ, 0, 4, _CLONE[column]), (_LOAD, 0, 0, 16), (_JSET, 1, 0, _CLONE_THREAD), refuse, allow]
    # Only for the own process, because changing the limits of another one would end it.
    code += [(_JEQ, 0, 4, _PRLIMIT[column]), (_LOAD, 0, 0, 16), (_JEQ, 1, 0, 0), refuse, allow]
    # Only these families, because a socket to the hypervisor is outside of every network namespace.
    families = [(_JEQ, len(_FAMILIES) - i, 0, family) for i, family in enumerate(_FAMILIES)]
    code += [(_JEQ, 0, len(families) + 3, _SOCKET[column]), (_LOAD, 0, 0, 16), *families, refuse, allow]
    for calls, argument in () if kills else _KILLS.values():
        # No SIGKILL or SIGSTOP, so that a program ended by one was ended from outside.
        code += [(_JEQ, 0, 5, calls[column]), (_LOAD, 0, 0, 16 + 8 * argument)]
        code += [(_JEQ, 1, 0, 9), (_JEQ, 0, 1, 19), refuse, allow]
    return [*code, allow]


def libc() -> ctypes.CDLL:
    """Return the C library of this process."""
    return ctypes.CDLL(None, use_errno=True)


def protect(library: ctypes.CDLL) -> None:
    """Keep other processes of the same user from reading this one's memory."""
    _prctl(library, 4, 0, 0)  # PR_SET_DUMPABLE


def install(library: ctypes.CDLL, machine: str, kills: bool = False) -> None:
    """Filter all further calls of this process."""
    listed = instructions(machine, kills)
    array = (_Instruction * len(listed))(*(_Instruction(*one) for one in listed))
    program = _Program(len(listed), array)
    _prctl(library, 38, 1, 0)  # PR_SET_NO_NEW_PRIVS
    _prctl(library, 22, 2, ctypes.addressof(program))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _prctl(library: ctypes.CDLL, option: int, first: int, second: int) -> None:
    if library.prctl(option, ctypes.c_ulong(first), ctypes.c_ulong(second), ctypes.c_ulong(0), ctypes.c_ulong(0)):
        raise OSError(ctypes.get_errno(), f"prctl {option}: {os.strerror(ctypes.get_errno())}")
