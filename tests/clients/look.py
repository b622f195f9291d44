"""Looks into a dump with drgn, without debugging information: prints the kernel's release as the dump's header knows it,
the release that stands in the kernel's own memory at a virtual address, and sums of physical pages.

Arguments: the dump, then addresses of pages, in hexadecimal."""

import hashlib
import re
import sys

from drgn import Program

prog = Program()
prog.set_core_dump(sys.argv[1])
print(prog["UTS_RELEASE"].string_().decode())
information = prog["VMCOREINFO"].string_().decode()


def value(key):
    return re.search(re.escape(key) + "=(.*)", information).group(1)


name = int(value("SYMBOL(init_uts_ns)"), 16) + int(value("OFFSET(uts_namespace.name)"))
# The release is the third field of 65 bytes.
print(prog.read(name + 2 * 65, 65).split(b"\0")[0].decode())
for address in sys.argv[2:]:
    print(address, hashlib.sha256(prog.read(int(address, 16), 4096, physical=True)).hexdigest())
