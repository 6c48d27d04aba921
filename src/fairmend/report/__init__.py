"""What people and programs are shown: tables, pictures, cards."""
