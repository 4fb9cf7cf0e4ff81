"""What annotation tools for people read and write: Label Studio's JSON and CVAT's XML."""
