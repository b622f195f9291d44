//! PCI: the bus as the host bridge shows it, configuration space, interrupt wires, and the bridges of the PC.
