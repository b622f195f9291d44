//! Input devices: keyboard and mouse behind the 8042 controller.
